"""Which interfaces are monitored and how, as they come and go."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from netmond.config import InterfacesConfig
from netmond.errors import InvalidArgs, KernelError, NoSuchInterface, Unavailable
from netmond.interfaces import Interfaces
from netmond.kernel import devices
from netmond.kernel.devices import Device
from netmond.model import Feature, FeatureState, InterfaceInfo
from netmond.ports import Ports
from tests.unit.fakes import Hooks, moment


def device(name: str, index: int, kind: str = "physical") -> Device:
    return Device(
        info=InterfaceInfo(name=name, index=index, kind=kind, state="up", kernel={"rx_bytes": index}),
        link_header=0 if kind == "tun" else 14,
        loopback=kind == "loopback",
    )


ALL = (device("lo", 1, "loopback"), device("eth0", 2), device("wlan0", 3), device("tun0", 4, "tun"))


class Attached:
    """Programs on an interface."""

    def __init__(self, machine: Machine, ifindex: int, hook: str) -> None:
        self._machine, self._ifindex, self.hook = machine, ifindex, hook

    def close(self) -> None:
        assert self._machine.attached.pop(self._ifindex) == self.hook


class Machine:
    """Interfaces over devices that the test adds and removes, on a kernel that may refuse."""

    def __init__(self, *monitor: str, attach: str = "auto", ports: int = 8, **attach_by_name: str) -> None:
        self.devices = {each.info.index: each for each in ALL}
        self.attached: dict[int, str] = {}  #: ifindex -> hook
        self.refuse: set[tuple[str, str]] = set()  #: name, mode
        self.hooks = Hooks(ports=ports)
        self.ports = Ports(self.hooks)
        self.interfaces = Interfaces(
            self.config(*monitor, attach=attach, **attach_by_name),
            ports=self.ports,
            attach=self._attach,
            devices=lambda: self.devices,
        )
        self.interfaces.refresh()

    @staticmethod
    def config(*monitor: str, attach: str = "auto", **attach_by_name: str) -> InterfacesConfig:
        return InterfacesConfig(monitor=monitor, attach=attach, forwarded=8, attach_by_name=attach_by_name)

    def _attach(self, ifindex: int, mode: str) -> Attached:
        assert ifindex not in self.attached, "attached twice"
        if (self.devices[ifindex].info.name, mode) in self.refuse:
            raise KernelError("cannot attach: not supported by this kernel or driver")
        self.attached[ifindex] = "tcx" if mode in ("auto", "tc") else mode
        return Attached(self, ifindex, self.attached[ifindex])

    @property
    def monitored(self) -> dict[str, str]:
        """name -> hook; what is attached, what counts, and what is told are the same."""
        infos = self.interfaces.infos.values()
        told = {info.index: info.hook for info in infos if info.monitored}
        assert self.attached == told
        assert self.hooks.ports.keys() == told.keys()
        assert set(self.ports.table(moment(1.0)).columns["ifindex"].tolist()) == told.keys()
        return {info.name: info.hook for info in infos if info.monitored}

    def reason(self, name: str) -> str:
        return next(info.reason for info in self.interfaces.infos.values() if info.name == name)

    @property
    def feature(self) -> Feature:
        return self.interfaces.feature()


@pytest.fixture(autouse=True)
def _no_default_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own routes shall not matter."""
    monkeypatch.setattr(devices, "default_route_devices", lambda: {4})


def test_auto_takes_physical_ones_and_the_default_route() -> None:
    """``auto`` is every physical interface and those that carry a default route, not the loopback."""
    machine = Machine("auto")

    assert machine.monitored == {"eth0": "tcx", "wlan0": "tcx", "tun0": "tcx"}
    assert machine.hooks.ports[4] == (2, 0, False)
    assert machine.feature == Feature(name="interfaces", state=FeatureState.ON)


def test_counters_come_before_the_programs() -> None:
    """When the first program may be attached, a checkpoint says already where its counts begin: a daemon
    that is killed right then has lost nothing."""
    machine = Machine()
    machine.interfaces.choose({"eth0": "tc"}, [])

    machine.interfaces.prepare()
    checkpoint = machine.ports.checkpoint()

    assert (checkpoint["ports.ifindex"].tolist(), machine.attached) == ([2], {})
    machine.interfaces.refresh()
    assert machine.monitored == {"eth0": "tcx"}
    assert machine.ports.checkpoint()["ports.base"].tolist() == checkpoint["ports.base"].tolist()


def test_names_and_auto() -> None:
    """Names may stand beside ``auto``; the loopback is known to the programs as such."""
    machine = Machine("lo", "auto")

    assert machine.monitored.keys() == {"lo", "eth0", "wlan0", "tun0"}
    assert machine.hooks.ports[1][2] is True


def test_only_names() -> None:
    """Without ``auto`` only those listed; all others are known all the same, with their own counters."""
    machine = Machine("wlan0")

    assert machine.monitored == {"wlan0": "tcx"}
    assert [(info.name, info.kernel) for info in machine.interfaces.infos.values()] == [
        (each.info.name, each.info.kernel) for each in ALL
    ]


def test_an_interface_that_comes_and_goes() -> None:
    """One that appears is monitored from the next look on; one that vanishes leaves nothing behind."""
    machine = Machine("auto")
    machine.devices[9] = device("eth1", 9)
    del machine.devices[3]
    machine.interfaces.refresh()

    assert machine.monitored == {"eth0": "tcx", "tun0": "tcx", "eth1": "tcx"}
    assert 3 not in machine.interfaces.infos


def test_an_interface_that_is_not_there_yet() -> None:
    """A listed name that does not exist degrades the feature, by name, until it appears."""
    machine = Machine("eth0", "ppp0")
    missing = "ppp0: no such interface (yet)"
    assert machine.feature == Feature(name="interfaces", state=FeatureState.DEGRADED, reason=missing)

    machine.devices[9] = device("ppp0", 9, "ppp")
    machine.interfaces.refresh()

    assert machine.monitored.keys() == {"eth0", "ppp0"}
    assert machine.feature.state is FeatureState.ON


def test_nothing_to_monitor() -> None:
    """No interface at all is worth a remedy."""
    machine = Machine()

    assert machine.feature.state is FeatureState.DEGRADED
    assert machine.feature.reason == "no interface found to monitor: netmonctl interface add NAME"


def test_a_renamed_interface() -> None:
    """It is wanted by name: renamed away it is let go, renamed into the list it is taken."""
    machine = Machine("eth0")
    machine.devices[2], machine.devices[3] = device("old", 2), device("eth0", 3)
    machine.interfaces.refresh()

    assert machine.monitored == {"eth0": "tcx"}
    assert machine.attached.keys() == {3}


class TestRefused:
    """What the kernel or driver does not allow."""

    def test_xdp_falls_back(self) -> None:
        """Where XDP is refused tc takes over; row and feature say so."""
        machine = Machine("eth0", "wlan0", attach="xdp")
        assert machine.monitored == {"eth0": "xdp", "wlan0": "xdp"}

        machine = Machine()
        machine.refuse.add(("eth0", "xdp"))
        machine.interfaces.configure(machine.config("eth0", "wlan0", attach="xdp"))

        reason = "xdp refused (cannot attach: not supported by this kernel or driver), tc used instead"
        assert machine.monitored == {"eth0": "tcx", "wlan0": "xdp"}
        assert machine.reason("eth0") == reason
        assert machine.feature.state is FeatureState.DEGRADED
        assert machine.feature.reason == f"eth0: {reason}"

    def test_nothing_works(self) -> None:
        """Where tc is refused too nothing is monitored, and nobody says that tc is used."""
        machine = Machine()
        machine.refuse |= {("eth0", "xdp"), ("eth0", "tc")}
        machine.interfaces.configure(machine.config("eth0", attach="xdp"))

        assert machine.monitored == {}
        assert machine.reason("eth0").startswith("xdp refused (cannot attach: ")
        assert "used instead" not in machine.reason("eth0")

    def test_tc_is_refused(self) -> None:
        """The reason is kept, tried again only when something is changed, and gone with the interface."""
        machine = Machine()
        machine.refuse.add(("eth0", "auto"))
        machine.interfaces.configure(machine.config("eth0", "wlan0"))
        assert machine.monitored == {"wlan0": "tcx"}
        assert machine.feature.reason == "eth0: cannot attach: not supported by this kernel or driver"

        machine.refuse.clear()
        machine.interfaces.refresh()
        assert "eth0" not in machine.monitored
        machine.interfaces.configure(machine.config("eth0", "wlan0"))

        assert machine.monitored.keys() == {"eth0", "wlan0"}
        assert machine.reason("eth0") == ""
        assert machine.feature.state is FeatureState.ON

    def test_a_refused_interface_that_vanishes(self) -> None:
        """Its reason goes with it."""
        machine = Machine()
        machine.refuse.add(("eth0", "auto"))
        machine.interfaces.configure(machine.config("auto"))
        del machine.devices[2]
        machine.interfaces.refresh()

        assert machine.feature.state is FeatureState.ON

    def test_more_interfaces_than_places(self) -> None:
        """Those beyond the limit have a reason, the others work."""
        machine = Machine("auto", ports=2)

        assert machine.monitored.keys() == {"eth0", "wlan0"}
        assert machine.reason("tun0") == "at most 2 interfaces can be monitored at a time"
        assert machine.feature.state is FeatureState.DEGRADED

    def test_the_programs_list_is_full(self) -> None:
        """Nor does one stay that could not be entered there."""
        machine = Machine()
        machine.hooks.refuse.add(2)
        machine.interfaces.configure(machine.config("eth0", "wlan0"))

        assert machine.monitored == {"wlan0": "tcx"}


class TestByHand:
    """netmonctl interface add and remove."""

    def test_add(self) -> None:
        """Beside the configured ones, in the way asked for."""
        machine = Machine("eth0")
        machine.interfaces.add("lo", "auto")
        machine.interfaces.add("wlan0", "xdp-generic")

        assert machine.monitored == {"eth0": "tcx", "lo": "tcx", "wlan0": "xdp-generic"}

    def test_remove(self) -> None:
        """Also what the configuration lists, and it stays off."""
        machine = Machine("auto")
        machine.interfaces.remove("wlan0")
        machine.interfaces.refresh()

        assert machine.monitored.keys() == {"eth0", "tun0"}
        assert machine.feature.state is FeatureState.ON

    def test_add_what_was_removed(self) -> None:
        """The last word counts."""
        machine = Machine("auto")
        machine.interfaces.remove("wlan0")
        machine.interfaces.add("wlan0", "tc")

        assert "wlan0" in machine.monitored

    def test_another_mode(self) -> None:
        """Adding a monitored one again changes how it is monitored."""
        machine = Machine("eth0")
        machine.interfaces.add("eth0", "xdp")

        assert machine.monitored == {"eth0": "xdp"}

    def test_it_comes_back(self) -> None:
        """One added by hand that vanishes is monitored again when an interface of that name appears."""
        machine = Machine("eth0")
        machine.interfaces.add("lo", "auto")
        lo = machine.devices.pop(1)
        machine.interfaces.refresh()
        assert machine.monitored.keys() == {"eth0"}
        machine.devices[1] = lo
        machine.interfaces.refresh()

        assert machine.monitored.keys() == {"eth0", "lo"}

    @pytest.mark.parametrize("act", ["add", "remove"])
    def test_no_such_interface(self, act: str) -> None:
        """The error names it, and where to look."""
        machine = Machine("eth0")

        acts: dict[str, Callable[[str], None]] = {
            "add": partial(machine.interfaces.add, mode="auto"),
            "remove": machine.interfaces.remove,
        }
        with pytest.raises(NoSuchInterface, match="no interface 'eth7': see netmonctl interfaces"):
            acts[act]("eth7")

        assert machine.monitored == {"eth0": "tcx"}

    def test_remove_what_is_not_monitored(self) -> None:
        """An error, and no memory of it."""
        machine = Machine("eth0")

        with pytest.raises(InvalidArgs, match="wlan0 is not monitored"):
            machine.interfaces.remove("wlan0")

        machine.interfaces.configure(machine.config("eth0", "wlan0"))
        assert machine.monitored.keys() == {"eth0", "wlan0"}

    def test_add_is_undone(self) -> None:
        """One that cannot be monitored is not remembered; the error holds the kernel's reason."""
        machine = Machine("eth0")
        machine.refuse.add(("lo", "auto"))

        with pytest.raises(Unavailable, match="cannot monitor lo: cannot attach: not supported"):
            machine.interfaces.add("lo", "auto")

        assert machine.monitored == {"eth0": "tcx"}
        assert machine.feature.state is FeatureState.ON
        machine.refuse.clear()
        machine.interfaces.refresh()
        assert machine.monitored == {"eth0": "tcx"}

    def test_xdp_on_request_falls_back_to_nothing(self) -> None:
        """Who asks for XDP and cannot have it gets an error, not tc: nothing has changed."""
        machine = Machine("eth0")
        machine.refuse |= {("eth0", "xdp"), ("lo", "xdp")}

        for name in ("eth0", "lo"):
            with pytest.raises(Unavailable, match=f"cannot monitor {name}: xdp refused") as raised:
                machine.interfaces.add(name, "xdp")
            assert "instead" not in str(raised.value)

        assert machine.monitored == {"eth0": "tcx"}
        assert machine.feature.state is FeatureState.ON

    def test_undo_restores_what_was_asked_before(self) -> None:
        """Removed by hand stays removed, added in one mode stays in that mode."""
        machine = Machine("auto")
        machine.interfaces.remove("eth0")
        machine.interfaces.add("lo", "xdp-generic")
        machine.refuse |= {("eth0", "xdp"), ("lo", "xdp")}

        for name in ("eth0", "lo"):
            with pytest.raises(Unavailable):
                machine.interfaces.add(name, "xdp")

        assert machine.monitored == {"wlan0": "tcx", "tun0": "tcx", "lo": "xdp-generic"}

    def test_a_failed_add_keeps_the_figures(self) -> None:
        """An interface monitored already goes on counting from where it was."""
        machine = Machine("eth0")
        machine.hooks.port_counters.array["in"]["stack_packets"][machine.hooks.ports[2][0]] = 23
        machine.refuse.add(("eth0", "xdp"))

        with pytest.raises(Unavailable):
            machine.interfaces.add("eth0", "xdp")

        assert machine.ports.table(moment(1.0)).counters[0, 4] == 23


class TestReload:
    """A new configuration while running."""

    def test_the_list_changes(self) -> None:
        """What is listed no more is let go, what is new is taken, the rest is not touched."""
        machine = Machine("eth0", "wlan0")
        place = machine.hooks.ports[3]
        machine.interfaces.configure(machine.config("wlan0", "lo"))

        assert machine.monitored == {"wlan0": "tcx", "lo": "tcx"}
        assert machine.hooks.ports[3] == place

    def test_the_mode_changes(self) -> None:
        """Only interfaces whose mode is another now are attached anew."""
        machine = Machine("eth0", "wlan0", "lo")
        machine.interfaces.configure(machine.config("eth0", "wlan0", "lo", eth0="xdp"))

        assert machine.monitored == {"eth0": "xdp", "wlan0": "tcx", "lo": "tcx"}

    def test_by_hand_comes_first(self) -> None:
        """What was added or removed by hand stays so."""
        machine = Machine("eth0", "wlan0")
        machine.interfaces.add("lo", "xdp-generic")
        machine.interfaces.remove("wlan0")
        machine.interfaces.configure(machine.config("eth0", "wlan0", attach="xdp"))

        assert machine.monitored == {"eth0": "xdp", "lo": "xdp-generic"}


def test_close_leaves_nothing_attached() -> None:
    """Every program is taken off and every place given up."""
    machine = Machine("auto")
    machine.interfaces.close()

    assert machine.attached == {}
    assert machine.hooks.ports == {}
