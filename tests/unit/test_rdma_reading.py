"""Readings of trees of /sys/class/infiniband: ports, counters, and devices that come and go."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netmond.errors import KernelError
from netmond.kernel.rdma_netlink import BoundCounter
from netmond.model import Gid, RdmaPort
from netmond.rdma import reading, sysfs
from netmond.rdma.reading import Reader
from netmond.rdma.sampler import Sample
from tests.unit.history import Clock
from tests.unit.rdma_tree import COUNTERS, MLX5, MLX5_ROCE, RXE, RdmaTree


class Netlink:
    """What RDMA netlink says: nothing beyond sysfs, until a test says otherwise."""

    def __init__(self) -> None:
        self.refuses = ""
        self.optional: dict[str, int] = {}
        self.bound: list[BoundCounter] = []
        self.asked = 0
        self.opened = 0

    def devices(self) -> dict[str, int]:
        self.opened += 1
        if self.refuses:
            raise KernelError(self.refuses)
        return {"mlx5_0": 0}

    def statistics(self, device: int, port: int) -> dict[str, int]:
        self.asked += 1
        return {"out_of_sequence": 77, **self.optional} if self.optional else {}

    def bound_counters(self, device: int) -> list[BoundCounter]:
        return self.bound


class Machine:
    """A tree, and a reader of it; time passes as a test says."""

    def __init__(self, directory: Path) -> None:
        self.tree = RdmaTree(directory)
        self.clock = Clock()
        self.netlink = Netlink()
        self.reader = Reader(
            self.tree.root, netlink=self.netlink, monotonic=self.clock, wall=lambda: 1000 + self.clock.now
        )

    def read(self, after: float = 1.0) -> Sample:
        self.clock.now += after
        return self.reader.read()

    def ports(self, after: float = 1.0) -> Mapping[tuple[str, int], RdmaPort]:
        return {(port.device, port.port): port for port in self.read(after).ports}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.reader.close()


def value(port: RdmaPort, name: str) -> tuple[int, int, float] | None:
    """Value, total and rate of a counter; None if it is absent."""
    places = [place for place, (_, each) in enumerate(port.names) if each == name]
    return (
        (int(port.values[places[0]]), int(port.totals[places[0]]), float(port.rates[places[0]]))
        if places
        else None
    )


class TestPorts:
    def test_roce(self, machine: Machine) -> None:
        """A port of mlx5 on Ethernet: its interface is that of its GIDs."""
        machine.tree.mlx5("mlx5_0", ports=2, link_layer="Ethernet", netdevs=("eth1", "eth2"))

        port = machine.ports()["mlx5_0", 2]

        assert (port.link_layer, port.state, port.physical_state) == ("Ethernet", "active", "link-up")
        assert (port.speed, port.lid, port.netdev) == (100_000_000_000, 0, "eth2")
        assert port.ifindex == int((machine.tree.sys / "class/net/eth2/ifindex").read_text())
        assert (port.node_guid, port.firmware, port.driver) == (
            "b859:9f03:00c9:0000",
            "20.31.1014",
            "mlx5_core",
        )
        assert port.gids == (
            Gid(index=0, address="fe80::ba59:9fff:fec9:1", type="IB/RoCE v1", netdev="eth2"),
            Gid(index=1, address="fe80::ba59:9fff:fec9:1", type="RoCE v2", netdev="eth2"),
            Gid(index=2, address="::ffff:198.51.100.2", type="RoCE v2", netdev="eth2"),
        )
        assert {name for _, name in port.names} == {*COUNTERS, *MLX5, *MLX5_ROCE}

    def test_infiniband(self, machine: Machine) -> None:
        """One on InfiniBand has a LID, and its interface is that of IPoIB on the same port."""
        machine.tree.mlx5("mlx5_0", ports=2, netdevs=("ib0", "ib1"))

        port = machine.ports()["mlx5_0", 2]

        assert (port.link_layer, port.lid, port.netdev) == ("InfiniBand", 12, "ib1")
        assert [gid.netdev for gid in port.gids] == [""]
        assert not {name for _, name in port.names} & {*MLX5_ROCE}

    def test_soft_roce(self, machine: Machine) -> None:
        """Soft-RoCE has no port counters, no firmware, and 1,024 places for GIDs, of which two are used."""
        machine.tree.rxe("rxe0", netdev="ve0", places=1024)

        port = machine.ports()["rxe0", 1]

        assert port.names == tuple(("hw_counters", name) for name in RXE)
        assert (port.driver, port.firmware, port.netdev, port.speed) == (
            "rdma_rxe",
            "",
            "ve0",
            10_000_000_000,
        )
        assert [gid.address for gid in port.gids] == ["fe80::8b6:15ff:fe99:43c4", "::ffff:198.51.100.1"]

    def test_gaps_between_gids(self, machine: Machine) -> None:
        """An address that was taken away leaves an empty place; those behind it are found."""
        machine.tree.rxe("rxe0")
        (machine.tree.port("rxe0") / "gids/0").write_text(f"{sysfs._NO_GID}\n")

        assert [gid.index for gid in machine.ports()["rxe0", 1].gids] == [1]

    @pytest.mark.parametrize(
        ("state", "physical", "shown"),
        [
            ("1: DOWN", "3: Disabled", ("down", "disabled")),
            ("1: DOWN", "2: Polling", ("down", "polling")),
            ("2: INIT", "5: LinkUp", ("init", "link-up")),
            ("5: ACTIVE_DEFER", "6: LinkErrorRecovery", ("active_defer", "link-error-recovery")),
            ("4: ACTIVE", "4: PortConfigurationTraining", ("active", "port-configuration-training")),
            ("4: ACTIVE", "7: Phy Test", ("active", "phy-test")),
            ("9: UNKNOWN", "9: <unknown>", ("unknown", "unknown")),
            ("", "", ("", "")),
        ],
    )
    def test_states(self, machine: Machine, state: str, physical: str, shown: tuple[str, str]) -> None:
        """In words, whichever the kernel has."""
        machine.tree.rxe("rxe0")
        machine.tree.state("rxe0", state=state, physical=physical)

        port = machine.ports()["rxe0", 1]

        assert (port.state, port.physical_state) == shown

    @pytest.mark.parametrize(
        ("rate", "speed"),
        [
            ("2.5 Gb/sec (1X SDR)", 2_500_000_000),
            ("400 Gb/sec (4X NDR)", 400_000_000_000),
            ("", 0),
            ("as fast as it can", 0),
        ],
    )
    def test_speeds(self, machine: Machine, rate: str, speed: int) -> None:
        machine.tree.rxe("rxe0")
        (machine.tree.port("rxe0") / "rate").write_text(f"{rate}\n")

        assert machine.ports()["rxe0", 1].speed == speed

    def test_a_link_that_comes_up(self, machine: Machine) -> None:
        """With the state speed and addresses are read anew, at the next reading."""
        machine.tree.rxe("rxe0")
        machine.tree.state("rxe0", state="1: DOWN", physical="2: Polling")
        machine.read()
        machine.tree.state("rxe0", state="4: ACTIVE", physical="5: LinkUp")
        (machine.tree.port("rxe0") / "rate").write_text("100 Gb/sec (4X EDR)\n")

        states = [(port.state, port.speed) for port in (machine.ports()["rxe0", 1] for _ in range(2))]

        assert states == [("active", 10_000_000_000), ("active", 100_000_000_000)]

    def test_an_address_that_comes(self, machine: Machine) -> None:
        """A new GID is seen within half a minute."""
        machine.tree.rxe("rxe0")
        machine.read()
        (machine.tree.port("rxe0") / "gids/2").write_text("fe80:0000:0000:0000:0000:0000:0000:0009\n")

        assert [len(machine.ports(after)["rxe0", 1].gids) for after in (1.0, 30.0)] == [2, 3]

    def test_no_device(self, machine: Machine) -> None:
        """A class without devices, or none, is nothing to read."""
        assert machine.read().ports == ()
        machine.tree.root.rmdir()
        assert machine.read().ports == ()
        assert machine.netlink.opened == 0  # it would load ib_core


class TestCounters:
    def test_growth(self, machine: Machine) -> None:
        """Data comes in words of 4 bytes; what was there before netmond is in the value only."""
        machine.tree.mlx5("mlx5_0")
        machine.tree.set("mlx5_0", port_xmit_data=1000, out_of_sequence=5)
        machine.read()
        machine.tree.set("mlx5_0", port_xmit_data=1500, out_of_sequence=6)

        port = machine.ports(after=2.0)["mlx5_0", 1]

        assert value(port, "port_xmit_data") == (1500, 2000, 1000.0)
        assert value(port, "out_of_sequence") == (6, 1, 0.5)

    def test_wraps_and_resets(self, machine: Machine) -> None:
        """A wrap at 32 bits goes on, so does one at 64; what began again counts from 0."""
        machine.tree.mlx5("mlx5_0")
        machine.tree.set(
            "mlx5_0", rx_write_requests=2**32 - 10, port_rcv_packets=2**64 - 10, port_rcv_data=2**40
        )
        machine.read()
        machine.tree.set("mlx5_0", rx_write_requests=10, port_rcv_packets=10, port_rcv_data=8)

        port = machine.ports()["mlx5_0", 1]

        assert value(port, "rx_write_requests") == (10, 20, 20.0)
        assert value(port, "port_rcv_packets") == (10, 20, 20.0)
        assert value(port, "port_rcv_data") == (8, 32, 32.0)

    @pytest.mark.parametrize("text", ["N/A (no PMA)", "", "-1", str(2**64), "0x10", "none\0"])
    def test_no_number(self, machine: Machine, text: str) -> None:
        """A counter that is no number is absent, and the others are there."""
        machine.tree.mlx5("mlx5_0")
        machine.tree.set("mlx5_0", port_xmit_wait=text, out_of_buffer=3)

        port = machine.ports()["mlx5_0", 1]

        assert value(port, "port_xmit_wait") is None
        assert value(port, "out_of_buffer") == (3, 0, 0.0)

    def test_cannot_be_read(self, machine: Machine) -> None:
        """One that the driver refuses is absent: here it is a directory (EISDIR)."""
        machine.tree.mlx5("mlx5_0")
        file = machine.tree.port("mlx5_0") / "counters/port_xmit_wait"
        file.unlink()
        file.mkdir()

        assert value(machine.ports()["mlx5_0", 1], "port_xmit_wait") is None

    def test_comes_back(self, machine: Machine) -> None:
        """A counter that could not be read for a while goes on; its rate is of all that time."""
        machine.tree.mlx5("mlx5_0")
        for text in ("10", "N/A (no PMA)", "40"):
            machine.tree.set("mlx5_0", np_cnp_sent=text)
            port = machine.ports()["mlx5_0", 1]

        assert value(port, "np_cnp_sent") == (40, 30, 15.0)

    def test_what_is_none(self, machine: Machine) -> None:
        """Files among the counters that are none, such as how long the kernel keeps values."""
        machine.tree.rxe("rxe0")
        machine.tree.set("rxe0", active_qps=7)
        port = machine.ports()["rxe0", 1]

        assert value(port, "lifespan") is None
        assert value(port, "active_qps") is None

    def test_of_the_device(self, machine: Machine) -> None:
        """Drivers that count by device only: its counters are those of port 1."""
        machine.tree.mlx5("mlx5_0", ports=2)
        for port in (1, 2):
            (machine.tree.port("mlx5_0", port) / "hw_counters").rename(
                machine.tree.root / f"mlx5_0/moved{port}"
            )
        (machine.tree.root / "mlx5_0/moved1").rename(machine.tree.root / "mlx5_0/hw_counters")

        ports = machine.ports()

        assert value(ports["mlx5_0", 1], "out_of_sequence") == (0, 0, 0.0)
        assert value(ports["mlx5_0", 2], "out_of_sequence") is None


class TestDevicesThatGo:
    def test_gone_and_back(self, machine: Machine) -> None:
        """A port goes with its device; when that is back, from 0 on, totals go on."""
        machine.tree.rxe("rxe0")
        machine.read()
        machine.tree.set("rxe0", sent_pkts=100)
        machine.read()
        machine.tree.remove("rxe0")
        assert machine.ports() == {}
        machine.tree.rxe("rxe0")
        machine.tree.set("rxe0", sent_pkts=7)

        port = machine.ports()["rxe0", 1]

        assert value(port, "sent_pkts") == (7, 107, 3.5)

    def test_replaced(self, machine: Machine, tmp_path: Path) -> None:
        """Another device that has taken the name between two readings is read, not the one that is gone."""
        machine.tree.rxe("rxe0")
        machine.read()
        other = RdmaTree(tmp_path / "other")
        other.mlx5("rxe0")
        other.set("rxe0", out_of_sequence=4)
        (machine.tree.root / "rxe0").unlink()
        (machine.tree.root / "rxe0").symlink_to((other.root / "rxe0").resolve())

        port = machine.ports()["rxe0", 1]

        assert (port.driver, value(port, "out_of_sequence")) == ("mlx5_core", (4, 0, 0.0))

    def test_while_being_read(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that goes in the midst of a reading has none, and is nobody else's trouble."""
        machine.tree.mlx5("mlx5_0")
        machine.tree.rxe("rxe0")
        machine.read()
        device = machine.tree.port("mlx5_0").resolve()
        read = os.pread

        def gone(descriptor: int, size: int, offset: int) -> bytes:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if path.startswith(str(device)) and not path.endswith(("/VL15_dropped", "/link_downed")):
                raise OSError(19, "No such device")
            return read(descriptor, size, offset)

        monkeypatch.setattr(os, "pread", gone)

        assert list(machine.ports()) == [("rxe0", 1)]
        monkeypatch.undo()
        assert list(machine.ports()) == [("mlx5_0", 1), ("rxe0", 1)]

    def test_not_yet_whole(self, machine: Machine) -> None:
        """The kernel shows a device before its ports: they are met at the next reading."""
        machine.tree.rxe("rxe0")
        ports = machine.tree.root / "rxe0/ports"
        ports.rename(ports.with_name("later"))
        assert machine.ports() == {}
        ports.with_name("later").rename(ports)

        assert list(machine.ports()) == [("rxe0", 1)]

    def test_many_names(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        """Totals of ports that are gone are not kept for ever."""
        monkeypatch.setattr(reading, "_REMEMBERED", 2)
        for number in range(6):
            machine.tree.rxe(f"rxe{number}")
            machine.read()
            machine.tree.remove(f"rxe{number}")
        machine.read()

        assert len(machine.reader._growth) <= 3


class TestDescriptors:
    @pytest.mark.parametrize("limit", [0, 5, 1000])
    def test_bounded(self, machine: Machine, limit: int) -> None:
        """As many files stay open as may; figures do not depend on it, and none stays open at the end."""
        machine.tree.mlx5("mlx5_0", ports=2)
        devices = sysfs.Devices(str(machine.tree.root), sysfs.Descriptors(limit))
        before = len(os.listdir("/proc/self/fd"))

        readings = [list(devices.read(now)) for now in (0.0, 1.0)]

        files = 2 * (len(COUNTERS) + len(MLX5) + 2)
        assert len(os.listdir("/proc/self/fd")) - before == min(limit, files)
        assert [len(reading.values) for reading in readings[1]] == [len(COUNTERS) + len(MLX5)] * 2
        devices.close()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_come_back(self, machine: Machine) -> None:
        """A device that goes gives its descriptors back, also over openings anew."""
        descriptors = sysfs.Descriptors(100)
        devices = sysfs.Devices(str(machine.tree.root), descriptors)
        machine.tree.rxe("rxe0")
        for now in (0.0, 40.0, 80.0):
            list(devices.read(now))
        machine.tree.remove("rxe0")
        list(devices.read(81.0))

        assert descriptors.left == 100


class TestNetlink:
    def test_optional_counters(self, machine: Machine) -> None:
        """Those that somebody has switched on are read with the others; sysfs does not have them."""
        machine.tree.mlx5("mlx5_0")
        machine.netlink.optional = {"cc_rx_cnp_pkts": 10}
        machine.read()
        machine.netlink.optional = {"cc_rx_cnp_pkts": 30, "active_qps": 7}

        port = machine.ports()["mlx5_0", 1]

        assert value(port, "cc_rx_cnp_pkts") == (30, 20, 20.0)
        assert value(port, "active_qps") is None
        assert value(port, "out_of_sequence") == (0, 0, 0.0)

    def test_usually_there_are_none(self, machine: Machine) -> None:
        """It is asked whether there are any twice a minute; not each time."""
        machine.tree.mlx5("mlx5_0")
        for _ in range(31):
            machine.read()

        assert machine.netlink.asked == 2

    def test_bound_counters(self, machine: Machine) -> None:
        """Counters that queue pairs have for themselves are in the sample."""
        counter = BoundCounter("mlx5_0", 1, 1, (17,), 4242, {"rx_write_requests": 9})
        machine.tree.mlx5("mlx5_0")
        machine.netlink.bound = [counter]

        assert machine.read().bound == (counter,)

    def test_refused(self, machine: Machine) -> None:
        """Without netlink there is the rest, and the reason."""
        machine.tree.mlx5("mlx5_0")
        machine.netlink.refuses = "netlink: Operation not permitted"

        sample = machine.read()

        assert [port.device for port in sample.ports] == ["mlx5_0"]
        assert (sample.bound, sample.reason) == ((), "netlink: Operation not permitted")

    def test_takes_no_more_than_a_fiftieth(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the driver takes long over bound counters they are asked for seldom; a sample tells whether
        they were."""
        machine.tree.mlx5("mlx5_0")
        asked: list[float] = []

        def slow(device: int) -> list[BoundCounter]:
            asked.append(machine.clock.now)
            machine.clock.now += 0.1
            return [BoundCounter("mlx5_0", 1, 1, (17,), 4242, {})]

        monkeypatch.setattr(machine.netlink, "bound_counters", slow)
        samples = [machine.read() for _ in range(12)]

        assert np.diff(asked).min() >= 5.0
        assert len({id(sample.bound) for sample in samples}) == len(asked)


def test_the_sample(machine: Machine) -> None:
    """When it was taken, and how long after the one before."""
    machine.tree.rxe("rxe0")
    first, second = machine.read(), machine.read(after=2.5)

    assert (first.time, first.interval) == (1001.0, 0.0)
    assert (second.time, second.interval) == (1003.5, 2.5)


@settings(max_examples=40)
@given(st.data())
def test_any_bytes(data: st.DataObject) -> None:
    """Whatever stands in the files of a device, it is read without an error."""
    with TemporaryDirectory() as directory:
        tree = RdmaTree(Path(directory))
        tree.mlx5("mlx5_0", netdevs=("ib0",))
        files = sorted(path for path in (tree.root / "mlx5_0").resolve().rglob("*") if path.is_file())
        for file in data.draw(st.lists(st.sampled_from(files), min_size=1)):
            file.write_bytes(data.draw(st.binary(max_size=200)))
        reader = Reader(tree.root, netlink=Netlink())
        sample = reader.read()
        reader.close()

    assert [port.device for port in sample.ports] == ["mlx5_0"]
