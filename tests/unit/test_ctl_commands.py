"""netmonctl from command line to text, JSON and exit code, with netmond replaced by a table of replies."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from netmonctl.__main__ import main
from netmonctl.calls import Call, translated
from netmonctl.client import Client
from netmonctl.errors import ExitCode
from netmonctl.output import Output

NOW = 1_700_007_444.0
SINCE = 1_700_000_023.0


class Fake:
    """A transport that records calls and answers from `replies`: a body, or an error to raise."""

    def __init__(self, replies: Mapping[str, Any]) -> None:
        self.replies = replies
        self.calls: list[Call] = []
        self.closed = False

    def call(self, call: Call) -> list[Any]:
        self.calls.append(call)
        reply = self.replies[call.member]
        if isinstance(reply, BaseException):
            raise reply
        return list(reply)

    def close(self) -> None:
        self.closed = True


class Ran:
    """One run of netmonctl: its exit code and what it wrote."""

    def __init__(self, fake: Fake, *argv: str, stdin: str = "", height: int | None = None) -> None:
        self.fake = fake
        out = Output(
            stdout=io.StringIO(),
            stderr=io.StringIO(),
            stdin=io.StringIO(stdin),
            now=lambda: NOW,
            height=height,
        )
        self.code = main(argv, lambda: Client(fake), out)
        assert isinstance(out.stdout, io.StringIO)
        assert isinstance(out.stderr, io.StringIO)
        self.stdout, self.stderr = out.stdout.getvalue(), out.stderr.getvalue()


def traffic(scale: int = 1) -> dict[str, Any]:
    """Counters and rates as every row carries them."""
    return {
        "in_packets": 101 * scale,
        "in_bytes": 89432 * scale,
        "out_packets": 23 * scale,
        "out_bytes": 4417 * scale,
        "in_packet_rate": 3.7 * scale,
        "in_byte_rate": 2048.0 * scale,
        "out_packet_rate": 0.0,
        "out_byte_rate": 17.0 * scale,
        "bytes": 93849 * scale,
        "byte_rate": 2065.0 * scale,
    }


def listing(*rows: Mapping[str, Any], total: int | None = None, scope: str = "all") -> list[Any]:
    return [list(rows), {"scope": scope, "total": len(rows) if total is None else total}]


ALICE = {"uid": 1000, "user": "alice", "flows": 3, **traffic(7)}
EVIL = {"uid": 1001, "user": "x\x1b[2J\nroot", "flows": 0, **traffic()}
FLOW: dict[str, Any] = {
    "id": 4711,
    "kind": "socket",
    "protocol": "tcp",
    "family": 6,
    "local": "2001:db8::10",
    "local_port": 40123,
    "remote": "2001:db8::1",
    "remote_port": 443,
    "interface": "eth0",
    "uid": 1000,
    "user": "alice",
    "pid": 1237,
    "process": "curl",
    "unit": "session-3.scope",
    "srtt_us": 12345,
    "retransmits": 2,
    "ended": False,
    **traffic(),
}
FORWARDED: dict[str, Any] = {
    **{k: v for k, v in FLOW.items() if k not in ("uid", "user")},
    "kind": "forwarded",
    "local": "",
    "local_port": 0,
    "remote": "192.0.2.7",
    "remote_port": 0,
    "process": "",
    "unit": "",
    "interface": "",
    "srtt_us": 0,
}
ETH0 = {
    "name": "eth0",
    "index": 2,
    "kind": "physical",
    "state": "up",
    "monitored": True,
    "hook": "tc",
    "reason": "",
    "kernel_rx_bytes": 123456,
    "kernel_tx_bytes": 4096,
    **traffic(),
}
LO: dict[str, Any] = {
    "name": "lo",
    "index": 1,
    "kind": "loopback",
    "state": "unknown",
    "monitored": False,
    "hook": "",
    "reason": "",
    "kernel_rx_bytes": 23,
    "kernel_tx_bytes": 23,
}
WLAN0 = {
    **LO,
    "name": "wlan0",
    "kind": "physical",
    "reason": "the kernel refused tc: load module sch_ingress",
}


def test_users_table() -> None:
    """Names left, numbers right, each with its unit; a hostile name stays in its cell."""
    ran = Ran(Fake({"ListUsers": listing(ALICE, EVIL, total=340)}), "users", "-n", "2")

    assert ran.stdout == (
        "USER               UID  FLOWS         IN       OUT     IN RATE  OUT RATE  IN PKTS  OUT PKTS\n"
        "alice             1000      3  611.4 KiB  30.2 KiB  14.0 KiB/s   119 B/s      707       161\n"
        "x\\x1b[2J\\x0aroot  1001      0   87.3 KiB   4.3 KiB   2.0 KiB/s    17 B/s      101        23\n"
        "\n"
        "2 users listed, 340 in total.\n"
    )
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.fake.closed


def test_flows_table() -> None:
    """Addresses with ports as they are pasted; what a forwarded flow does not have is a dash or a star."""
    ran = Ran(Fake({"ListFlows": listing(FLOW, FORWARDED)}), "flows")

    assert ran.stdout == (
        "PROTO  LOCAL                 REMOTE                   IN      OUT    IN RATE  OUT RATE  IN PKTS  "
        "OUT PKTS  USER   PROCESS  UNIT             IF    KIND           RTT  RETR\n"
        "tcp    [2001:db8::10]:40123  [2001:db8::1]:443  87.3 KiB  4.3 KiB  2.0 KiB/s    17 B/s      101  "
        "      23  alice  curl     session-3.scope  eth0  socket     12.3 ms     2\n"
        "tcp    *                     192.0.2.7          87.3 KiB  4.3 KiB  2.0 KiB/s    17 B/s      101  "
        "      23  -      -        -                -     forwarded        -     2\n"
        "\n"
        "2 flows listed.\n"
    )


def test_interfaces_table() -> None:
    """Everything that could be monitored is there, with why something is not."""
    ran = Ran(Fake({"ListInterfaces": listing(ETH0, LO, WLAN0)}), "interfaces")

    assert ran.stdout == (
        "INTERFACE  KIND      STATE    MONITORED  HOOK        IN      OUT    IN RATE  OUT RATE  IN PKTS  "
        "OUT PKTS  KERNEL RX  KERNEL TX\n"
        "eth0       physical  up       yes        tc    87.3 KiB  4.3 KiB  2.0 KiB/s    17 B/s      101  "
        "      23  120.6 KiB    4.0 KiB\n"
        "lo         loopback  unknown  no         -            -        -          -         -        -  "
        "       -       23 B       23 B\n"
        "wlan0      physical  unknown  no         -            -        -          -         -        -  "
        "       -       23 B       23 B\n"
        "\n"
        "wlan0: the kernel refused tc: load module sch_ingress\n"
        "\n"
        "3 interfaces listed.\n"
    )


def test_no_legend() -> None:
    """For scripts: rows only."""
    ran = Ran(Fake({"ListProcesses": listing({"pid": 7, "process": "sshd"})}), "--no-legend", "processes")

    assert ran.stdout.split() == ["7", "sshd", *["-"] * 9]


@pytest.mark.parametrize(
    ("count", "noun"), [(0, "0 processes"), (1, "1 process"), (2, "2 processes")], ids=str
)
def test_legend_counts(count: int, noun: str) -> None:
    """The closing line is a sentence, whatever the number."""
    ran = Ran(Fake({"ListProcesses": listing(*[{"pid": 7}] * count)}), "processes")

    assert ran.stdout.endswith(f"\n{noun} listed.\n")


def test_legend_says_how_to_see_the_rest() -> None:
    """Rows that nobody asked to leave out are one option away."""
    ran = Ran(Fake({"ListFlows": listing(FLOW, total=340)}), "flows")

    assert ran.stdout.endswith("\n1 flow listed, 340 in total; -n 0 lists all.\n")


def test_json_rows_are_netmonds() -> None:
    """JSON is an array of the rows as delivered: numbers are numbers, names are raw."""
    ran = Ran(Fake({"ListUsers": listing(ALICE, EVIL)}), "--json=short", "users")

    assert ran.stdout.count("\n") == 1
    assert json.loads(ran.stdout) == [ALICE, EVIL]


def test_json_that_is_not_all_says_so() -> None:
    """A program gets its rows, the person a remark on standard error."""
    ran = Ran(Fake({"ListFlows": listing(FLOW, total=340)}), "flows", "--json")

    assert json.loads(ran.stdout) == [FLOW]
    assert ran.stderr == "1 of 340 flows; -n 0 prints all.\n"


OWN = "Showing own figures only; for everyone's use --all, run as root or join group netmond.\n"


@pytest.mark.parametrize(
    ("argv", "note"), [(["users"], OWN), (["users", "--own"], ""), (["users", "--json"], OWN)]
)
def test_own_scope_is_announced(argv: list[str], note: str) -> None:
    """Own figures look like everyone's, so it is said, unless they were asked for."""
    assert Ran(Fake({"ListUsers": listing(ALICE, scope="own")}), *argv).stderr == note


@pytest.mark.parametrize(
    ("line", "member", "options"),
    [
        ("users", "ListUsers", {"limit": 10_000}),
        ("users -n 0 --all", "ListUsers", {"limit": 0, "scope": "all"}),
        ("users --own --reverse", "ListUsers", {"limit": 10_000, "scope": "own", "reverse": True}),
        (
            "units --user alice --sort in-bytes",
            "ListUnits",
            {"limit": 10_000, "user": "alice", "sort": "in_bytes"},
        ),
        (
            "processes --unit ssh.service --pid 0",
            "ListProcesses",
            {"limit": 100, "unit": "ssh.service", "pid": 0},
        ),
        ("flows", "ListFlows", {"limit": 100}),
        (
            "--proto udp --port 53 flows --peer 192.0.2.0/24 -i eth0 --kind peer --active -n 7",
            "ListFlows",
            {
                "limit": 7,
                "protocol": "udp",
                "port": 53,
                "peer": "192.0.2.0/24",
                "interface": "eth0",
                "kind": "peer",
                "active": True,
            },
        ),
        ("interfaces --monitored", "ListInterfaces", {"limit": 10_000, "monitored": True}),
        ("target list", "ListTargets", {"limit": 10_000}),
    ],
)
def test_list_options_on_the_bus(line: str, member: str, options: dict[str, Any]) -> None:
    """What is asked of netmond for a command line."""
    fake = Fake({member: listing()})

    assert Ran(fake, *line.split()).code == 0
    assert fake.calls == [Call("/org/netmond1", "org.netmond1.Manager", member, ("a{sv}",), (options,))]


def test_list_repainted_on_a_terminal_asks_for_a_screenful() -> None:
    """A watched list on a terminal never asks for rows that would not fit."""
    fake = Fake({"ListFlows": KeyboardInterrupt()})

    assert Ran(fake, "flows", "--watch", height=24).code == 130
    assert fake.calls[0].body == ({"limit": 17},)


TARGET = {
    "Address": "192.0.2.1",
    "Since": 1_700_000_023_000_000,
    "InPackets": 1024,
    "InBytes": 89432,
    "OutPackets": 23,
    "OutBytes": 5555555,
}
TARGET_PATH = "/org/netmond1/target/_3192_2e0_2e2_2e1"


def test_target_show() -> None:
    """Inbound, outbound and total as users of per-target counters know them."""
    fake = Fake({"GetTarget": [TARGET_PATH], "GetAll": [TARGET]})
    ran = Ran(fake, "target", "show", "192.0.2.1")

    assert ran.stdout == (
        "● 192.0.2.1\n"
        "             Since: Tue 2023-11-14 22:13:43 UTC; 2h 3min ago\n"
        "   Inbound Packets: 1024\n"
        "     Inbound Bytes: 89432 bytes (87.34 KB)\n"
        "  Outbound Packets: 23\n"
        "    Outbound Bytes: 5555555 bytes (5.30 MB)\n"
        "     Total Packets: 1047\n"
        "       Total Bytes: 5644987 bytes (5.38 MB)\n"
    )
    assert [call.path for call in fake.calls] == ["/org/netmond1", TARGET_PATH]


def test_target_show_json() -> None:
    """Several targets are an array with the keys of the target list."""
    ran = Ran(Fake({"GetTarget": [TARGET_PATH], "GetAll": [TARGET]}), "target", "show", "--json", "a", "b")

    assert (
        json.loads(ran.stdout)
        == [
            {
                "address": "192.0.2.1",
                "path": TARGET_PATH,
                "since": SINCE,
                "in_packets": 1024,
                "in_bytes": 89432,
                "out_packets": 23,
                "out_bytes": 5555555,
            }
        ]
        * 2
    )


def test_target_list() -> None:
    """A table with in and out, packets and bytes, and since when."""
    row = {"address": "2001:db8::/32", "since": SINCE, **traffic()}

    assert Ran(Fake({"ListTargets": listing(row)}), "target", "list").stdout == (
        "TARGET         IN PKTS        IN  OUT PKTS      OUT    IN RATE  OUT RATE  SINCE\n"
        "2001:db8::/32      101  87.3 KiB        23  4.3 KiB  2.0 KiB/s    17 B/s  "
        "Tue 2023-11-14 22:13:43 UTC\n"
        "\n"
        "1 target listed.\n"
    )


def test_target_add_from_everywhere(tmp_path: Path) -> None:
    """Arguments, commas, standard input and file make one call; comments and blank lines do not count."""
    file = tmp_path / "targets"
    file.write_text("# ours\n198.51.100.0/24\n\n2001:db8::1 # one\n")
    fake = Fake({"AddTargets": [["/a"]]})
    ran = Ran(fake, "target", "add", "192.0.2.1,192.0.2.2", "-", "--file", str(file), stdin="192.0.2.3\n")

    assert ran.stdout == "Added 5 targets.\n"
    assert [call.body for call in fake.calls] == [
        (["192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.0/24", "2001:db8::1"], {})
    ]


def test_target_add_ten_thousand_at_once() -> None:
    """However many there are, netmond is asked once, so that it can do all or none."""
    addresses = [f"2001:db8::{index:x}" for index in range(10_000)]
    fake = Fake({"AddTargets": [["/a"] * 10_000]})
    ran = Ran(fake, "target", "add", "-", stdin="\n".join(addresses))

    assert ran.stdout == "Added 10000 targets.\n"
    assert [call.body for call in fake.calls] == [(addresses, {})]


NO_ADDRESS = "no address given; write for example 192.0.2.1, 2001:db8::/32, - or --file FILE"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["target", "add"], NO_ADDRESS),
        (["target", "add", "-"], NO_ADDRESS),
        (["target", "add", "bäd"], "'bäd' is not an address; write 192.0.2.1, 2001:db8::1 or 192.0.2.0/24"),
        (["users", "extra"], "users does not take extra; see: netmonctl users --help"),
        (["users", "--port", "1"], "users does not take --port 1; see: netmonctl users --help"),
        (["\x1b[31m"], "unknown command '\\x1b[31m'; see: netmonctl --help"),
        (["user", "4294967295"], "4294967295 is not a user number"),
        (
            ["-H", "far", "target", "add", "--file", "x"],
            "x is on this machine; write: netmonctl -H … target … - < FILE",
        ),
        (["top"], "top needs a terminal; for a pipe or a file use: netmonctl users --watch"),
    ],
)
def test_usage_errors(argv: list[str], message: str) -> None:
    """One line on standard error that says what to do, exit code 2, netmond not bothered."""
    ran = Ran(Fake({}), *argv)

    assert (ran.code, ran.stdout, ran.stderr) == (2, "", f"netmonctl: {message}\n")
    assert ran.fake.calls == []


def test_missing_file() -> None:
    """A file that cannot be read is a failure with the system's reason."""
    ran = Ran(Fake({}), "target", "add", "--file", "/nonexistent/targets")

    assert (ran.code, ran.stderr) == (
        1,
        "netmonctl: cannot read /nonexistent/targets: No such file or directory\n",
    )


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        ("org.netmond1.Error.NoSuchTarget", 5, "no target 9"),
        ("org.netmond1.Error.AccessDenied", 4, "ask the admin"),
        ("org.netmond1.Error.InvalidArgs", 2, "sort cannot be 'x'"),
        ("org.netmond1.Error.Failed", 1, "two\\x0alines"),
    ],
)
def test_errors_of_netmond(error: str, code: int, text: str) -> None:
    """netmond's line is shown as one line, with the exit code of its kind."""
    fake = Fake({"ListUsers": translated(error, text.replace("\\x0a", "\n"))})
    ran = Ran(fake, "users")

    assert (ran.code, ran.stdout, ran.stderr) == (code, "", f"netmonctl: {text}\n")
    assert fake.closed


@pytest.mark.parametrize(
    "argv", [[], ["status"], ["users", "--json"], ["target", "add", "192.0.2.1"], ["reload"]]
)
def test_not_running(argv: list[str]) -> None:
    """Every command says the same when there is no daemon, status included."""
    error = translated("org.freedesktop.DBus.Error.NameHasNoOwner", "")
    ran = Ran(Fake({"Describe": error, "ListUsers": error, "AddTargets": error, "Reload": error}), *argv)

    assert (ran.code, ran.stdout) == (3, "")
    assert ran.stderr == "netmonctl: netmond is not running; start it: systemctl start netmond\n"


def test_interrupt() -> None:
    """Ctrl-C ends quietly with the code that shells expect."""
    ran = Ran(Fake({"ListUsers": KeyboardInterrupt()}), "users")

    assert (ran.code, ran.stdout, ran.stderr) == (130, "", "")


def test_reload() -> None:
    """Warnings are shown and leave the exit code alone."""
    ran = Ran(Fake({"Reload": [["netmond.toml: unknown key 'x'"]]}), "reload")

    assert (ran.code, ran.stdout) == (0, "Configuration reloaded.\n")
    assert ran.stderr == "netmonctl: warning: netmond.toml: unknown key 'x'\n"


def test_log_level() -> None:
    """Shown without an argument, set with one, through the standard interface."""
    fake = Fake({"Get": ["info"], "Set": []})

    assert Ran(fake, "log-level").stdout == "info\n"
    assert Ran(fake, "log-level", "--json=short").stdout == '{"log_level":"info"}\n'
    assert Ran(fake, "log-level", "debug").stdout == "Log level set to debug.\n"
    assert fake.calls[-1] == Call(
        "/org/freedesktop/LogControl1",
        "org.freedesktop.DBus.Properties",
        "Set",
        ("s", "s", "v"),
        ("org.freedesktop.LogControl1", "LogLevel", "debug"),
    )


def test_interface_add_and_remove() -> None:
    """The attach mode travels only if it was given."""
    fake = Fake({"MonitorInterface": [], "UnmonitorInterface": []})

    assert Ran(fake, "interface", "add", "eth0").stdout == "Monitoring eth0.\n"
    assert Ran(fake, "interface", "add", "eth0", "--attach", "xdp").code == 0
    assert Ran(fake, "--no-legend", "interface", "remove", "eth0").stdout == ""
    assert [call.body for call in fake.calls] == [("eth0", {}), ("eth0", {"attach": "xdp"}), ("eth0", {})]


DETAIL = {
    **{key: value for key, value in ALICE.items() if key != "flows"},
    "flow_count": 3,
    "peers": [{"address": "192.0.2.7", "flows": 2, **traffic()}],
    "units": [],
    "processes": [{"pid": 1237, "process": "curl", "uid": 1000, "user": "alice", "unit": "", "flows": 1}],
    "flows": [],
}


def test_user_page() -> None:
    """Totals and rates in words, then a table for each kind of detail that exists."""
    ran = Ran(Fake({"GetUser": [DETAIL]}), "user", "1000")

    assert ran.stdout == (
        "● alice (1000)\n"
        "  Inbound: 611.4 KiB (626024 bytes) in 707 packets\n"
        " Outbound: 30.2 KiB (30919 bytes) in 161 packets\n"
        "    Total: 641.5 KiB (656943 bytes) in 868 packets\n"
        "     Rate: in 14.0 KiB/s (25.9 packets/s), out 119 B/s (0 packets/s)\n"
        "    Flows: 3 open\n"
        "\n"
        "Top peers:\n"
        "  PEER       FLOWS        IN      OUT    IN RATE  OUT RATE  IN PKTS  OUT PKTS\n"
        "  192.0.2.7      2  87.3 KiB  4.3 KiB  2.0 KiB/s    17 B/s      101        23\n"
        "\n"
        "Top processes:\n"
        "   PID  PROCESS  UNIT  FLOWS  IN  OUT  IN RATE  OUT RATE  IN PKTS  OUT PKTS\n"
        "  1237  curl     -         1   -    -        -         -        -         -\n"
    )
    assert ran.fake.calls[0].body == (1000, {"limit": 10})


def test_user_by_name() -> None:
    """A name is looked up here; one that does not exist is an unknown object."""
    fake = Fake({"GetUser": [DETAIL]})

    assert Ran(fake, "user", "root", "-n", "3", "--json").code == 0
    assert fake.calls[0].body == (0, {"limit": 3})
    ran = Ran(fake, "user", "no-such-user-23")
    assert (ran.code, ran.stderr) == (
        5,
        "netmonctl: no user 'no-such-user-23' on this machine; see: netmonctl users\n",
    )


STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "started": SINCE,
    "since": SINCE - 86400,
    "time": NOW,
    "interval": 0.9973,
    "tick": 7421,
    "features": [
        {"name": "meter", "state": "on", "reason": ""},
        {"name": "interfaces", "state": "degraded", "reason": "wlan0: load module sch_ingress"},
        {"name": "csv", "state": "off", "reason": "not configured"},
    ],
    "losses": [
        {"name": "meter.no-slot", "count": 23, "meaning": "counted for their user only"},
        {"name": "output.csv.dropped", "count": 0, "meaning": "rows that were not written"},
    ],
    "totals": traffic(1024),
    "host": traffic(2048),
    "interfaces": [ETH0, LO, WLAN0],
    "users": 1,
    "flows": 340,
    "targets": 0,
    "cost": {"cpu_seconds": 37.105, "resident_bytes": 43210987, "tick_seconds": 0.0123},
}


def test_status_page() -> None:
    """The page a person reads first: every number has a name and a unit."""
    assert Ran(Fake({"Describe": [json.dumps(STATUS)]})).stdout == (
        "● netmond 0.1.0 - who uses the network on this machine\n"
        "     Since: Tue 2023-11-14 22:13:43 UTC; 2h 3min ago\n"
        "  Counting: since Mon 2023-11-13 22:13:43 UTC; 1d 2h ago\n"
        "      Tick: 7421, 1s after the one before\n"
        "     Knows: 1 user, 340 flows, 0 targets\n"
        "   Inbound: 87.3 MiB (91578368 bytes) in 103424 packets\n"
        "  Outbound: 4.3 MiB (4523008 bytes) in 23552 packets\n"
        "     Total: 91.6 MiB (96101376 bytes) in 126976 packets\n"
        "      Rate: in 2.0 MiB/s (3789 packets/s), out 17.0 KiB/s (0 packets/s)\n"
        "    Losses: 23 meter.no-slot: counted for their user only\n"
        "      Cost: 37s CPU (0.50 % of one core since the start), 41.2 MiB memory, last tick took 12.3ms\n"
        "  Features: ● meter      on\n"
        "            ● interfaces degraded - wlan0: load module sch_ingress\n"
        "            ○ csv        off - not configured\n"
        "   Machine: in 174.7 MiB in 206848 packets, out 8.6 MiB in 47104 packets:"
        " all interfaces, each packet once\n"
        "Interfaces: 1 monitored; 2 not monitored, see: netmonctl interfaces\n"
        "\n"
        "  INTERFACE  KIND      STATE  HOOK        IN      OUT    IN RATE  OUT RATE  IN PKTS  OUT PKTS\n"
        "  eth0       physical  up     tc    87.3 KiB  4.3 KiB  2.0 KiB/s    17 B/s      101        23\n"
        "  wlan0: the kernel refused tc: load module sch_ingress\n"
    )


@pytest.mark.parametrize(
    ("argv", "counts", "lines"),
    [
        (["status"], (0, 0), ["no losses"]),
        (["status", "-v"], (0, 0), ["no losses", "0 meter.no-slot:", "0 output.csv.dropped:"]),
        (["status", "-v"], (123, 0), ["123 meter.no-slot:", "  0 output.csv.dropped:"]),
    ],
)
def test_status_losses(argv: list[str], counts: tuple[int, int], lines: list[str]) -> None:
    """Silence about losses means none: it is said; -v shows the counters of zero, too."""
    losses = [loss | {"count": count} for loss, count in zip(STATUS["losses"], counts, strict=True)]
    out = Ran(Fake({"Describe": [json.dumps(STATUS | {"losses": losses})]}), *argv).stdout.splitlines()

    first = next(index for index, line in enumerate(out) if line.startswith("    Losses: "))
    for line, expected in zip(out[first:], lines, strict=False):
        assert line[12:].startswith(expected)
    assert out[first + len(lines)].startswith("      Cost: ")


def test_status_json() -> None:
    """netmond's own description, unchanged."""
    assert json.loads(Ran(Fake({"Describe": [json.dumps(STATUS)]}), "status", "--json").stdout) == STATUS


def test_si_sizes() -> None:
    """--si counts in thousands everywhere."""
    out = Ran(Fake({"ListUsers": listing(ALICE)}), "users", "--si", "--no-legend").stdout

    assert "626.0 kB" in out
    assert "14.3 kB/s" in out


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Both end with 0 and ask netmond nothing."""
    for argv in (["--help"], ["--version"], ["flows", "--help"]):
        assert Ran(Fake({}), *argv).code == 0
    assert capsys.readouterr().out.count("usage: netmonctl") == 2


def test_full_disk() -> None:
    """A result that cannot be written is a failure, not a traceback."""

    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    code = _main_with(Full())

    assert code == ExitCode.FAILURE


def test_reader_gone() -> None:
    """`netmonctl flows | head` is no error and says nothing."""

    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    assert _main_with(Gone()) == ExitCode.OK


def _main_with(stdout: io.StringIO) -> int:
    stderr = io.StringIO()
    out = Output(stdout=stdout, stderr=stderr, stdin=io.StringIO())
    return main(["users"], lambda: Client(Fake({"ListUsers": listing(ALICE)})), out)
