"""What cannot work here is off with a reason, the rest runs; what is wrong is refused in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from netmond.kernel import programs
from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import DEADLINE
from tests.kernel.machine import Machine
from tests.kernel.running import ROOT, Netmond
from tests.kernel.strangers import XDP, stranger

NOBODY = 65534
DATAGRAM = 101 + 28
XDP_PASS = 2

#: Commands that make the cgroup hierarchies of a machine, in a mount namespace of the daemon's own.
LAYOUTS = {
    "unified": "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup",
    "hybrid": "umount -R /sys/fs/cgroup; mount -t tmpfs none /sys/fs/cgroup; mkdir /sys/fs/cgroup/unified;"
    " mount -t cgroup2 none /sys/fs/cgroup/unified",
    "elsewhere": "umount -R /sys/fs/cgroup; mount -t cgroup2 none '{directory}/c group'",
}


def in_mounts(script: str) -> Callable[[list[str]], list[str]]:
    """Runs a command after a script that changes mounts for it alone."""
    shell = f'{script}; exec "$0" "$@"'
    return lambda argv: ["unshare", "--mount", "--propagation", "private", "sh", "-c", shell, *argv]


def exchange(scene: Scene) -> None:
    """23 datagrams of the user and their echoes."""
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="a", peer=["10.23.1.2", port])
    user.do("exchange", name="a", count=23, size=101)


def counts_users(scene: Scene, netmond: Netmond) -> None:
    exchange(scene)
    assert netmond.user(USER) == (23, 23 * DATAGRAM) * 2
    (row,) = [row for row in netmond.rows("Units") if row["unit"] == scene.unit.name]
    assert (row["slice"], row["cgroup"]) == (scene.slice.name, scene.unit.path)


def counts_only_interfaces(scene: Scene, netmond: Netmond) -> None:
    exchange(scene)
    assert netmond.rows("Users") == netmond.rows("Flows") == []
    assert netmond.interface(scene.link.near_device)["classes"]["in_ipv4_packets"] == 23
    netmond.add_targets("192.0.2.7")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cgroup_layouts(scene: Scene, layout: str) -> None:
    """Wherever cgroup2 is mounted, it is found, and units have their names."""
    (scene.machine.directory / "c group").mkdir()
    script = LAYOUTS[layout].format(directory=scene.machine.directory)
    netmond = scene.netmond(around=in_mounts(script))

    assert netmond.feature("meter")[0] == "on"
    counts_users(scene, netmond)


def test_no_cgroup2(scene: Scene) -> None:
    """Without cgroup2 the meter is off and says how to get one; interfaces and targets count."""
    netmond = scene.netmond(around=in_mounts("umount -R /sys/fs/cgroup"))

    state, reason = netmond.feature("meter")
    assert state == "off"
    assert "mount -t cgroup2" in reason
    assert "\n" not in reason
    assert reason in netmond.ctl("status").out
    counts_only_interfaces(scene, netmond)


def test_cgroup_that_does_not_exist(scene: Scene) -> None:
    """A cgroup to meter that is not there: the meter is off and names it."""
    netmond = scene.netmond(config={"meter.cgroup": "/no-such.slice"})

    state, reason = netmond.feature("meter")
    assert state == "off"
    assert "no-such.slice" in reason
    counts_only_interfaces(scene, netmond)


def test_meter_switched_off(scene: Scene) -> None:
    """[meter] enabled = false: off, and the reason is the configuration."""
    netmond = scene.netmond(config={"meter.enabled": False})

    assert netmond.feature("meter") == ("off", "switched off by [meter] enabled")
    counts_only_interfaces(scene, netmond)


def nothing_works(scene: Scene, netmond: Netmond, hint: str) -> None:
    """Meter, interfaces and targets are off for a reason that holds the hint; the daemon answers."""
    exchange(scene)
    for feature in ("meter", "interfaces", "targets"):
        state, reason = netmond.feature(feature)
        assert state == "off"
        assert hint in reason
        assert "\n" not in reason
    assert netmond.feature("bus") == ("on", "")
    assert netmond.ctl("status").code == netmond.ctl("users").code == 0
    assert scene.link.near_device in {row["name"] for row in netmond.json("interfaces")}
    said = netmond.ctl("target", "add", "192.0.2.7")
    assert said.code == 1
    assert hint in said.line
    said = netmond.ctl("interface", "add", scene.link.near_device)
    assert said.code == 1
    assert hint in said.line
    assert netmond.ctl("target", "remove", "192.0.2.7").code == 5
    assert netmond.stop() == 0
    assert "Traceback" not in netmond.log


@pytest.mark.parametrize("kept", ["", "+net_admin", "+bpf,+perfmon"], ids=["none", "no bpf", "no net_admin"])
def test_missing_capabilities(scene: Scene, kept: str) -> None:
    """Without the capabilities nothing can be loaded: off, with the names of those that are needed."""
    sets = f"--bounding-set=-all{',' if kept else ''}{kept}"
    netmond = scene.netmond(around=lambda argv: ["setpriv", "--inh-caps=-all", sets, *argv])

    nothing_works(scene, netmond, "CAP_BPF")


def test_no_btf(scene: Scene) -> None:
    """A kernel without type information: off, and the reason says what is missing."""
    netmond = scene.netmond(around=in_mounts("mount -t tmpfs none /sys/kernel/btf"))

    nothing_works(scene, netmond, "BTF")


def test_no_bcc(scene: Scene) -> None:
    """Without the package that compiles: off, and the reason names it."""
    package = scene.machine.directory / "bcc.py"
    package.write_text("raise ModuleNotFoundError(\"No module named 'bcc'\", name='bcc')\n")
    netmond = scene.netmond(around=lambda argv: ["env", f"PYTHONPATH={package.parent}", *argv])

    nothing_works(scene, netmond, "python3-bpfcc")


def test_interface_that_does_not_exist(scene: Scene) -> None:
    """A name in the configuration that is no interface (yet): degraded and named, the others count."""
    netmond = scene.netmond(interfaces=[scene.link.near_device, "nosuch0"])

    state, reason = netmond.feature("interfaces")
    assert state == "degraded"
    assert "nosuch0" in reason
    counts_users(scene, netmond)
    assert netmond.interface(scene.link.near_device)["classes"]["in_ipv4_packets"] == 23


def test_xdp_that_is_refused(scene: Scene) -> None:
    """A device that cannot do native XDP: tc is used where the configuration asks for it, and status says
    so; asked for by hand it is refused, and everything stays as it was."""
    for name in ("br0", "br1"):
        scene.near.ip(f"link add {name} type bridge", f"link set {name} up")
    netmond = scene.netmond(interfaces=["br0"], config={"interface.br0.attach": "xdp"})
    row = netmond.interface("br0")
    assert (row["monitored"], row["hook"]) == (True, "tcx")
    state, reason = netmond.feature("interfaces")
    assert state == "degraded"
    assert "br0: xdp refused" in reason

    said = netmond.ctl("interface", "add", "br1", "--attach", "xdp")

    assert said.code == 1
    assert "br1" in said.line
    assert not netmond.interface("br1")["monitored"]
    assert netmond.interface("br0")["hook"] == "tcx"


def test_xdp_that_is_taken(scene: Scene) -> None:
    """Somebody else's XDP program is on the interface: it stays, tc is used, and status says so."""
    device = scene.link.near_device
    with stranger(scene.near, device, XDP, programs.XDP, XDP_PASS):
        netmond = scene.netmond(config={f"interface.{device}.attach": "xdp"})

        state, reason = netmond.feature("interfaces")
        assert state == "degraded"
        assert f"{device}: xdp refused" in reason
        exchange(scene)
        row = netmond.interface(device)
        assert (row["hook"], row["classes"]["in_ipv4_packets"]) == ("tcx", 23)


# -- what the client is refused -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def netmond(shared: Scene) -> Netmond:
    """A daemon with a target, whose state must not change."""
    return shared.netmond(config={"targets.addresses": ["192.0.2.7"]})


def state(netmond: Netmond) -> object:
    """What commands could have changed."""
    interfaces = [(row["name"], row["monitored"], row["hook"]) for row in netmond.peek("Interfaces")]
    targets = [row["address"] for row in netmond.peek("Targets", sort="address")]
    # Not the outputs: on a busy machine one may be behind for a moment, whatever is asked of the daemon.
    features = [one for one in netmond.status()["features"] if not one["name"].startswith("output.")]
    return interfaces, targets, features


@pytest.mark.parametrize(
    ("command", "code", "hint"),
    [
        ("interface add nosuch0", 5, "nosuch0"),
        ("interface remove nosuch0", 5, "nosuch0"),
        ("interface remove lo", 2, "not monitored"),
        ("interface add far1 --attach glue", 2, "glue"),
        ("target add 192.0.2.300", 2, "192.0.2.300"),
        ("target add 192.0.2", 2, "192.0.2"),
        ("target add 192.0.2.0/33", 2, "192.0.2.0/33"),
        ("target add 192.0.2.1/24", 2, "192.0.2.0/24"),
        ("target add 2001:db8::1/32", 2, "2001:db8::/32"),
        ("target add 2001:db8:::1", 2, "2001:db8:::1"),
        ("target add fe80::1%far1", 2, "fe80::1"),
        ("target add 198.51.100.1 192.0.2.300", 2, "192.0.2.300"),
        ("target add", 2, "no address"),
        ("target add 192.0.2.7", 1, "192.0.2.7"),
        ("target add --file /nonexistent", 1, "/nonexistent"),
        ("target remove 198.51.100.1", 5, "198.51.100.1"),
        ("target reset 198.51.100.1", 5, "198.51.100.1"),
        ("target show 198.51.100.1", 5, "198.51.100.1"),
        ("user no-such-user", 5, "no-such-user"),
        ("user 54321", 5, "54321"),
        ("flows --user no-such-user", 5, "no-such-user"),
        ("flows --interface nosuch0", 5, "nosuch0"),
        ("flows --peer 192.0.2", 2, "192.0.2"),
        ("flows --peer 192.0.2.1/24", 2, "192.0.2.0/24"),
        ("flows --proto warp", 2, "warp"),
        ("flows --port 65536", 2, "65536"),
        ("users --sort beauty", 2, "beauty"),
        ("users --frobnicate", 2, "--frobnicate"),
        ("frobnicate", 2, "frobnicate"),
        ("log-level loud", 2, "loud"),
    ],
)
def test_refused(shared: Scene, netmond: Netmond, command: str, code: int, hint: str) -> None:
    """One line that says what is wrong, the exit code of its kind, and a daemon that is as it was."""
    before = state(netmond)

    said = netmond.ctl(*command.split())

    assert said.code == code, said
    assert hint in said.line
    netmond.settle()
    assert state(netmond) == before


@pytest.mark.parametrize(
    "command",
    [
        "target add 198.51.100.1", "target remove 192.0.2.7", "target reset 192.0.2.7", "target list",
        "interface add lo", "interface remove far1", "reload", "log-level debug", "users --all",
        "user 0", "flows --user root",
    ],
)  # fmt: skip
def test_not_allowed(shared: Scene, netmond: Netmond, command: str) -> None:
    """An ordinary user is refused, in one line, what is not his; nothing changes."""
    before = state(netmond)

    said = netmond.ctl(*command.split(), uid=NOBODY)

    assert said.code == 4, said
    assert "root" in said.line
    assert state(netmond) == before


def test_not_running(scene: Scene) -> None:
    """Nobody there: exit code 3, and what to do."""
    netmond = scene.daemon()

    said = netmond.ctl("status")

    assert said.code == 3
    assert "systemctl start netmond" in said.line


# -- what the daemon is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ('meter.slots = "many"', "whole number"),
        ("meter.slots = 0", "from 1 to"),
        ("meter.enabled = 1", "true or false"),
        ("daemon.interval = 0", "from 0.1 to 60"),
        ('daemon.log_level = "loud"', "emerg"),
        ("interfaces.monitor = 7", "list"),
        ('interfaces.monitor = ["a/b"]', "interface name"),
        ('interface.far1.attach = "glue"', "xdp-generic"),
        ('targets.addresses = ["192.0.2.1/24"]', "192.0.2.0/24"),
        ('targets.addresses = ["192.0.2.300"]', "192.0.2.300"),
        ('output.csv.interval = "often"', "number of seconds"),
        ("meter = 7", "section"),
        ("meter.slots = ", "TOML"),
    ],
)
def test_bad_configuration(machine: Machine, line: str, hint: str) -> None:
    """A value that cannot be: no start, exit status 1, one line with file, key and what is allowed."""
    file = machine.directory / "netmond.toml"
    file.write_text(line + "\n")
    key = line.partition(" ")[0]

    for flags in ("", "--check"):
        argv = [sys.executable, "-m", "netmond", "-c", str(file), *flags.split()]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False)

        assert done.returncode == 1
        (said,) = done.stderr.splitlines()
        assert str(file) in said
        assert key in said or hint == "TOML"
        assert hint in said
        assert done.stdout == ""


def test_wrong_usage(machine: Machine) -> None:
    """An unknown flag, a flag's bad value: exit status 2 or 1, and no traceback."""
    for flags, code in ((["--frobnicate"], 2), (["--interval", "soon"], 1), (["-t", "192.0.2.1/24"], 1)):
        argv = [sys.executable, "-m", "netmond", "-c", "/dev/null", *flags]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert done.returncode == code
        assert flags[0].lstrip("-")[:1] in done.stderr
        assert "Traceback" not in done.stderr


def test_unknown_keys_are_warned_of(scene: Scene) -> None:
    """A key or section nobody knows: a warning with file and key, and the daemon runs."""
    netmond = scene.netmond(config={"meter.slot": 7, "metre.slots": 7})

    for word in ("meter.slot", "metre", "did you mean"):
        assert any(word in line and str(netmond.config) in line for line in netmond.log.splitlines())
    counts_users(scene, netmond)


def test_bad_configuration_on_reload(scene: Scene) -> None:
    """A reload with a bad value is refused in one line, and the old configuration stays in force."""
    netmond = scene.netmond(config={"targets.addresses": ["192.0.2.7"]})
    before = state(netmond)

    netmond.configure({"targets.addresses": ["192.0.2.9"], "meter.slots": "many"})
    said = netmond.ctl("reload")

    assert said.code == 1
    assert "meter.slots" in said.line
    assert state(netmond) == before


def test_no_bus(scene: Scene) -> None:
    """Without a message bus the daemon does not start, and says so in a line."""
    netmond = scene.daemon()
    argv = scene.near.command([sys.executable, "-m", "netmond", *netmond.arguments])
    environment = {**netmond.environment, "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent/bus"}

    done = subprocess.run(
        argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=2 * DEADLINE, check=False
    )

    assert done.returncode == 1
    assert "bus" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
