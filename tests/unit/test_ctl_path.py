"""netmonctl path over recorded streams: what it asks for, and every form in which it shows what comes."""

from __future__ import annotations

import io
import json
import os
import signal
from typing import Any

import pytest

from netmonctl import completers, path_table
from netmonctl.__main__ import main
from netmonctl.calls import Call
from netmonctl.client import Client
from netmonctl.errors import CtlError, ExitCode
from netmonctl.output import CLEAR, Output
from netmonctl.path_text import span
from netmonctl.render import Style, cells
from netmond.path import stages
from tests.unit.pathlines import (
    DROP,
    END,
    PACKET,
    STAGES,
    SUPPRESSED,
    event,
    figures,
    stream,
    way,
)


class Netmond:
    """Answers StartPath with pipes in which a stream and its last figures wait.

    `stays`: the stream does not end before it is asked to.
    """

    def __init__(self, data: bytes, end: str = "stopped", *, stays: bool = False) -> None:
        self.options: dict[str, Any] = {}
        self.stopped = 0
        self._data, self._end, self._stays = data, end, stays
        self._writer = -1

    def call(self, call: Call) -> list[Any]:
        if call.member == "StopSession":
            self.stopped += 1
            os.write(self._writer, json.dumps(END).encode() + b"\n")
            os.close(self._writer)
            return []
        assert call.member == "StartPath"
        (self.options,) = call.body
        progress, told = os.pipe()
        os.write(told, json.dumps({"end": self._end, "packets": 1}).encode() + b"\n")
        os.close(told)
        reader, self._writer = os.pipe()
        os.write(self._writer, self._data)
        if not self._stays:
            os.close(self._writer)
        return [7, reader, progress]

    def close(self) -> None:
        pass


class Ran:
    """A run of netmonctl path to its end."""

    def __init__(
        self,
        line: str,
        netmond: Netmond | None = None,
        *,
        width: int | None = None,
        colour: bool = False,
        unicode: bool = True,
    ) -> None:
        self.netmond = netmond or Netmond(stream())
        stdout, stderr = io.StringIO(), io.StringIO()
        out = Output(
            stdout=stdout,
            stderr=stderr,
            stdin=io.StringIO(),
            style=Style(width=width, colour=colour, unicode=unicode),
            height=None if width is None else 40,
            measure=lambda: os.terminal_size((width or 80, 40)),
        )
        self.code = main(["path", *line.split()], lambda: Client(self.netmond), out)
        self.stdout, self.stderr = stdout.getvalue(), stderr.getvalue()
        self.lines = self.stdout.splitlines()


def asked(line: str) -> dict[str, Any]:
    return Ran(line).netmond.options


# -- what is asked for -----------------------------------------------------------------------------------


def test_options() -> None:
    """Letters that take a value with other commands are switches here, and the other way round."""
    assert asked("") == {}
    assert asked("-i 192.0.2.0/24 --ip 2001:db8::1 -p 443 --port 80 --protocol tcp -u 5 -u 6") == {
        "addresses": ["192.0.2.0/24", "2001:db8::1"],
        "ports": [443, 80],
        "protocols": ["tcp"],
        "users": [5, 6],
    }
    assert asked("--drops --rate 0 -c 3 --duration 2 --stages ip_rcv,kfree_skb") == {
        "drops": True,
        "rate": 0,
        "count": 3,
        "duration": 2.0,
        "stages": ["ip_rcv", "kfree_skb"],
    }


def test_options_of_figures() -> None:
    """One report after one interval, if nobody watches."""
    report = {"mode": "stats", "interval": 1.0}
    assert asked("-s") == report | {"duration": 1.0}
    assert asked("-s --interval 3") == {"mode": "stats", "interval": 3.0, "duration": 3.0}
    assert asked("-s --duration 9") == report | {"duration": 9.0}
    assert asked("-s --json") == report
    assert Ran("-s", width=80).netmond.options == report


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("-i example.org", "neither an address nor a prefix"),
        ("-p 70000", "not a whole number"),
        ("--interval 2", "add --stats"),
        ("--stats --journeys", "one of both"),
        ("surplus", "does not take surplus"),
    ],
)
def test_usage(line: str, error: str) -> None:
    ran = Ran(line)
    assert (ran.code, ran.stdout) == (ExitCode.USAGE, "")
    assert error in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_refused() -> None:
    class Refusing(Netmond):
        def call(self, call: Call) -> list[Any]:
            raise CtlError("no stage can be had here; see: netmonctl path -d")

    ran = Ran("", Refusing(b""))

    assert (ran.code, ran.stdout) == (ExitCode.FAILURE, "")
    assert ran.stderr == "netmonctl: no stage can be had here; see: netmonctl path -d\n"


# -- the table -------------------------------------------------------------------------------------------


def test_table() -> None:
    """Everything that is known, in the columns that other tracers have, and more of them."""
    ran = Ran("--no-legend", Netmond(stream(*way(1), END)))

    assert ran.code == 0
    assert [line.split() for line in ran.lines] == [
        f"{stage} 192.0.2.1 192.0.2.2 40000 443 4294967295 1234567890 22:13:20.{time} {rest}".split()
        for stage, time, rest in (
            ("netif_receive_skb", "000000000", "- eth0 1500 - -"),
            ("ip_rcv_finish", "000000850", "850 ns - 1500 - -"),
            ("sock_def_readable", "000013150", "12.3 us eth0 1500 alice curl[4211]"),
        )
    ]


def test_titles() -> None:
    header = Ran("", Netmond(stream(*way(1)))).lines[0]
    assert header.split("  ")[0] == "KERNEL FUNCTION"
    for title in ("SRC IP", "DST IP", "SRC PORT", "DST PORT", "SEQ", "ACK SEQ", "TIMESTAMP", "SINCE",
                  "INTERFACE", "LENGTH", "USER", "PROCESS"):  # fmt: skip
        assert f" {title}" in header


def test_marks() -> None:
    """What did not simply pass says why and where, behind its line or below it."""
    retransmit = event("tcp_retransmit_skb", event="retransmit")
    wide = Ran("", Netmond(stream(DROP, retransmit)))
    assert wide.lines[1].endswith("  drop: NO_SOCKET in tcp_v4_rcv+0x1f")
    assert wide.lines[2].endswith("  retransmit")
    assert "2 events (1 drop, 1 retransmit) in" in wide.stderr

    narrow = Ran("", Netmond(stream(DROP)), width=80)
    assert "    drop: NO_SOCKET in tcp_v4_rcv+0x1f" in narrow.lines


@pytest.mark.parametrize("width", [20, 40, 80, 100, 132, 200])
def test_never_wraps(width: int) -> None:
    """Columns of least use go first, addresses are cut last; remarks and the summary are as narrow."""
    long = {"src": "2001:db8:1234:5678::1", "dst": "2001:db8:1234:5678:aaaa:bbbb:cccc:1"}
    data = stream(*way(1), DROP, SUPPRESSED, *way(2, 10**6, **long), way(3)[2] | {"process": "名" * 30}, END)
    for line in ("", "--journeys", "-v"):
        ran = Ran(line, Netmond(data), width=width)
        assert max(map(cells, ran.lines)) <= width
    at_80 = Ran("", Netmond(data), width=80).lines
    assert at_80[1] == "KERNEL FUNCTION   SRC IP    DST IP    SRC PORT DST PORT    SINCE LENGTH"
    assert max(map(len, Ran("--full", Netmond(data), width=80).lines)) > 132


def test_columns_grow() -> None:
    """A longer name makes room for itself, without another header unless other columns fit then."""
    packets = [event("ip_rcv"), event("ip_rcv", src="198.51.100.100", dst="198.51.100.101")]
    ran = Ran("", Netmond(stream(*packets, packets[0])))
    assert sum(line.startswith("KERNEL") for line in ran.lines) == 1
    assert ran.lines[2].index("198.51.100.101") == ran.lines[3].index("192.0.2.2")

    assert sum(line.startswith("KERNEL") for line in Ran("", Netmond(stream(*packets)), width=72).lines) == 2


def test_unknown_is_said() -> None:
    """A packet of which nothing is known but where it is."""
    nothing: dict[str, Any] = dict.fromkeys(PACKET)
    ran = Ran("--no-legend", Netmond(stream(event("__dev_queue_xmit", **nothing))))
    assert ran.lines[0].split() == ["__dev_queue_xmit", *"------", "22:13:20.000000000", *"-----"]


def test_hostile_names() -> None:
    """Nothing that a process calls itself steers the terminal or makes a line of its own."""
    evil: dict[str, Any] = {"process": "x\x1b[2J\nDROP", "user": "\u202e", "interface": "\r"}
    drop = DROP | {"reason": "\x07", "function": "\x1b]0;"} | evil
    for line in ("", "--journeys", "--json"):
        ran = Ran(line, Netmond(stream(event("ip_rcv", **evil), drop)), width=300)
        assert not {"\x1b", "\r", "\x07", "\u202e"} & set(ran.stdout)
        assert not any(shown.startswith("DROP") for shown in ran.lines)


def test_json_is_ascii() -> None:
    """Also if what netmond writes is not."""
    line = json.dumps(event("ip_rcv", user="é\u202e"), ensure_ascii=False).encode() + b"\n"
    ran = Ran("--json", Netmond(stream() + line))
    assert ran.stdout.isascii()
    assert json.loads(ran.lines[1])["user"] == "é\u202e"


def test_colour() -> None:
    """On a terminal only: the way, and what did not pass."""
    ran = Ran("--no-legend", Netmond(stream(*way(1), DROP)), width=120, colour=True)
    assert ran.lines[1].startswith("\x1b[32mnetif_receive_skb\x1b[0m ")
    assert ran.lines[4].startswith("\x1b[31mkfree_skb")
    assert "\x1b" not in Ran("", Netmond(stream(*way(1), DROP))).stdout


# -- what is missing -------------------------------------------------------------------------------------


def test_stages_that_are_off() -> None:
    """Named once, with where to look; with --verbose all that was tried."""
    assert Ran("", Netmond(stream())).stderr.startswith(
        "# not here: tcp_queue_rcv (netmonctl path -d says why)\n"
    )
    said = Ran("-v", Netmond(stream())).stderr
    assert "# ip_rcv_finish is replaced: no fentry and no kprobe here\n" in said
    assert "#   tried fentry:ip_rcv_finish: not supported\n" in said
    assert "# tcp_queue_rcv is off: nothing else sees it\n" in said
    assert "icmp_rcv" not in said


def test_suppressed() -> None:
    """When it changes and in the end; on a terminal among the events, else out of their way."""
    text = "suppressed by the rate limit (see --rate): 42 (ip_rcv_finish 40, sock_def_readable 2); "
    text += "lost, because they came too fast: 3"
    ran = Ran("", Netmond(stream(SUPPRESSED, *way(1), END)))
    assert f"# {text}\n" in ran.stderr
    assert ran.stderr.endswith(f"; {text}\n")
    assert "suppressed" not in ran.stdout
    assert f"# {text}" in Ran("", Netmond(stream(SUPPRESSED, *way(1))), width=200).lines
    assert not Ran("--no-legend", Netmond(stream(*way(1)))).stderr.count("events")


@pytest.mark.parametrize(
    ("end", "line", "code", "said"),
    [
        ("stopped", "", 0, ""),
        ("count", "-c 1", 0, ""),
        ("duration", "--duration 1", 0, ""),
        ("daemon", "", 1, "netmond"),
        ("error: the ring is gone", "", 1, "the ring is gone"),
    ],
)
def test_ends(end: str, line: str, code: int, said: str) -> None:
    """An end nobody asked for is a failure, after all that came and the summary."""
    ran = Ran(line, Netmond(stream(*way(1)), end))
    assert (ran.code, len(ran.lines)) == (code, 4)
    assert "3 events in" in ran.stderr
    assert said in ran.stderr.splitlines()[-1]


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """netmond is asked to stop it, what it still has comes, then the summary; it is no failure."""
    netmond = Netmond(stream(*way(1)), stays=True)
    lines = path_table.Table.lines

    def interrupted(self: path_table.Table, events: Any) -> list[str]:
        os.kill(os.getpid(), signal.SIGINT)
        return lines(self, events)

    monkeypatch.setattr(path_table.Table, "lines", interrupted)
    ran = Ran("", netmond)

    assert (ran.code, netmond.stopped, len(ran.lines)) == (0, 1, 4)
    assert ran.stderr.splitlines()[-1].startswith("3 events in ")


def test_pieces() -> None:
    """However the pipe cuts the lines."""
    data = stream(*way(1), DROP)

    class Slow(Netmond):
        def call(self, call: Call) -> list[Any]:
            number, reader, progress = super().call(call)
            again, writer = os.pipe()
            for piece in (data[:5], data[5:900], data[900:901], data[901:]):
                os.write(writer, piece)
            os.close(reader)
            os.close(writer)
            return [number, again, progress]

    assert len(Ran("", Slow(b"")).lines) == 5


# -- other forms -----------------------------------------------------------------------------------------


def test_json() -> None:
    """Line by line as it comes."""
    data = stream(*way(1), DROP, SUPPRESSED, END)
    assert Ran("--json", Netmond(data)).stdout.encode() == data


def test_journeys() -> None:
    """A packet's events together, though others passed meanwhile, in the order of time."""
    one, two = way(1), way(2, 500, sport=50000)
    mixed = [one[0], two[0], two[1], one[2], one[1], two[2], DROP, event("ip_rcv", journey=None)]
    ran = Ran("--follow --no-legend", Netmond(stream(*mixed)))

    assert ran.lines[:10] == [
        "#1 tcp 192.0.2.1:40000 -> 192.0.2.2:443 [P.] length 1500",
        "seq 4294967295 ack 1234567890 alice curl[4211]",
        "  22:13:20.000000000              netif_receive_skb  eth0",
        "  22:13:20.000000850     +850 ns  ip_rcv_finish",
        "  22:13:20.000013150    +12.3 us  sock_def_readable  eth0",
        "#2 tcp 192.0.2.1:50000 -> 192.0.2.2:443 [P.] length 1500",
        "seq 4294967295 ack 1234567890 alice curl[4211]",
        "  22:13:20.000000500              netif_receive_skb  eth0",
        "  22:13:20.000001350     +850 ns  ip_rcv_finish",
        "  22:13:20.000013650    +12.3 us  sock_def_readable  eth0",
    ]
    assert ran.lines[12].endswith("+950 ns  kfree_skb  eth0  drop: NO_SOCKET in tcp_v4_rcv+0x1f")
    assert len(ran.lines) == 16


def test_journey_of_a_retransmission() -> None:
    """It says which was the first."""
    again = event("tcp_retransmit_skb", event="retransmit", journey=7, first=3)
    ran = Ran("--follow", Netmond(stream(again)))
    assert ran.lines[0].startswith("#7 tcp ")
    assert ran.lines[0].endswith(" length 1500 (again, first #3)")
    assert ran.lines[2].endswith("tcp_retransmit_skb  eth0  retransmit")


def test_journeys_as_json() -> None:
    ran = Ran("--journeys --json", Netmond(stream(*way(1), *way(2))))
    lines = [json.loads(line) for line in ran.lines]
    assert [line["type"] for line in lines] == ["stages", "journey", "journey"]
    assert [line["journey"] for line in lines[1:]] == [1, 2]
    assert lines[1]["events"] == way(1)


def test_report() -> None:
    """Counts and times of each stage that anything has passed, and the drops by reason."""
    ran = Ran("-s", Netmond(stream(figures(1.0, 50), figures()), "duration"))
    assert [" ".join(line.split()) for line in ran.lines] == [
        "KERNEL FUNCTION PACKETS BYTES SUPPRESSED MEAN P50 P99 HISTOGRAM",
        "netif_receive_skb 100 146.5 KiB 0 - - - -",
        "ip_rcv_finish 100 146.5 KiB 7 5.2 us 4.1 us 1.0 ms ▁ █ ▁",
        "",
        "HISTOGRAM: 1.0 us to 1.0 ms since the stage before, each bar twice the last",
        "",
        "DROPPED BECAUSE IN STAGE PACKETS",
        "SOCKET_RCVBUFF udp_rcv kfree_skb 12",
        "NO_SOCKET tcp_v4_rcv kfree_skb 3",
        "",
        "2 stages, 15 drops in 2s.",
    ]
    assert ran.code == 0


def test_report_live() -> None:
    """On a terminal each report takes the place of the last one."""
    ran = Ran("-s", Netmond(stream(figures(1.0, 50)) + stream(figures())), width=80)
    assert ran.stdout.count(CLEAR) == 1
    assert "2 stages, 15 drops in 2s." in ran.stdout
    assert Ran("-s", Netmond(stream(figures())), width=80, unicode=False).stdout.isascii()


def test_histograms() -> None:
    lines = Ran("-s -v", Netmond(stream(figures()), "duration")).lines
    at = lines.index("ip_rcv_finish: time since the stage before")
    assert [line.split() for line in lines[at + 1 : at + 4]] == [
        ["up", "to", "1.0", "us", "10", "#" * 5],
        ["up", "to", "4.1", "us", "89", "#" * 40],
        ["up", "to", "1.0", "ms", "1", "#"],
    ]


@pytest.mark.parametrize("line", ["-d", "--debug-func -s", "-d --journeys -p 443"])
def test_stages(line: str) -> None:
    """Which hook each has, and why; nothing that comes after is waited for."""
    netmond = Netmond(stream(), stays=True)
    ran = Ran(line, netmond)
    assert ran.lines[0].split() == ["STAGE", "DIR", "LAYER", "STATE", "HOOK", "WHY"]
    assert ran.lines[2].split()[:5] == ["ip_rcv_finish", "in", "ip", "replaced", "netfilter:PRE_ROUTING"]
    assert ran.lines[3].split()[:6] == ["tcp_queue_rcv", "in", "transport", "off", "-", "nothing"]
    assert len(ran.lines) == 1 + len(STAGES)


def test_stages_in_full() -> None:
    lines = Ran("-d -v", Netmond(stream())).lines
    at = [line.split()[0] for line in lines].index("ip_rcv_finish")
    assert lines[at + 1] == "    tried fentry:ip_rcv_finish: not supported"
    assert json.loads(Ran("-d --json=short", Netmond(stream())).stdout) == STAGES


def test_no_stages() -> None:
    ran = Ran("-d", Netmond(b"", "error: no program could be loaded"))
    assert (ran.code, ran.stdout) == (1, "")
    assert "no program could be loaded" in ran.stderr


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0 ns"), (999, "999 ns"), (1000, "1.0 us"), (999_949, "999.9 us"), (999_950, "1.0 ms"),
     (999_949_999, "999.9 ms"), (999_950_000, "1.0 s"), (2.5e9, "2.5 s")],
)  # fmt: skip
def test_span(nanoseconds: float, text: str) -> None:
    assert span(nanoseconds) == text


def test_names_of_stages() -> None:
    """Completion knows those that netmond has, without asking it."""
    assert [stage.name for stage in stages.STAGES] == list(completers.STAGES)
    assert completers.stages("ip_rcv,tcp_queue") == ["ip_rcv,tcp_queue_rcv"]
