"""netmonctl log tail, over real files that grow, are renamed, packed, cut and removed meanwhile."""

from __future__ import annotations

import io
import json
import os
import pwd
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from netmonctl import logtail
from netmonctl.__main__ import main
from netmonctl.calls import Call
from netmonctl.client import Client
from netmonctl.errors import CtlError, ExitCode, NotAllowed
from netmonctl.logtail_file import BLOCK, MAX_BEHIND, Follower
from netmonctl.logtail_rows import PROTOCOLS, name, parse
from netmonctl.output import Output
from netmonctl.render import Style
from netmond.outputs import csvrows
from netmond.views import PROTOCOLS as THEIR_PROTOCOLS

#: Exempt from being the one who runs the tests, so that the option -u is seen to work.
GAMES = 5

Act = Callable[[], object]


class Log:
    """A user's log as netmond keeps it; rows are numbered by their source port, each of 100 bytes in."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / f"traffic_user_all_{GAMES}.log"
        self.opened = 0
        self.trouble: CtlError | None = None
        self._count = 0
        self.begin()

    def begin(self) -> None:
        """A new file."""
        self.path.write_bytes(csvrows.HEADER)

    def rows(self, number: int = 1) -> str:
        """The next rows."""
        first, self._count = self._count + 1, self._count + number
        return "".join(
            f"in,100,192.0.2.7,192.0.2.1,1700000000.{n:09d},{100 * n},0,1,443,{n % 60000}"
            ",tcp,a.service,7,curl\n"
            for n in range(first, first + number)
        )

    def add(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def put_aside(self) -> Path:
        """As netmond rotates: another name, then a new file."""
        aside = self.path.with_name(f"{self.path.name}-{self._count}")
        self.path.rename(aside)
        self.begin()
        return aside

    def pack(self, aside: Path) -> None:
        """As netmond gives the space back of what it has compressed."""
        os.truncate(aside, 0)
        aside.unlink()

    # -- as a transport ----------------------------------------------------------------------------

    def call(self, call: Call) -> list[int]:
        assert (call.member, call.body) == ("OpenLog", (GAMES, {}))
        self.opened += 1
        if self.trouble is not None:
            raise self.trouble
        try:
            return [os.open(self.path, os.O_RDONLY)]
        except FileNotFoundError:
            raise CtlError("user 5 has no log yet", ExitCode.UNKNOWN_OBJECT) from None

    def close(self) -> None:
        pass


class Ran:
    """A run of log tail; each time it has shown all there is, the next act happens, in the end Ctrl-C."""

    def __init__(
        self, log: Log, line: str, *acts: Act, terminal: bool = False, width: int | None = None
    ) -> None:
        turns: Iterator[Act] = iter(acts)

        def pause(_: float) -> None:
            for act in turns:
                act()
                return
            raise KeyboardInterrupt

        stdout, stderr = io.StringIO(), io.StringIO()
        out = Output(
            stdout=stdout,
            stderr=stderr,
            stdin=io.StringIO(),
            style=Style(colour=terminal, width=width),
            height=25 if terminal else None,
            sleep=pause,
        )
        self.code = main(["log", "tail", "-u", str(GAMES), *line.split()], lambda: Client(log), out)
        self.stdout, self.stderr = stdout.getvalue(), stderr.getvalue()

    @property
    def ports(self) -> list[int]:
        """Of the rows in JSON, in their order."""
        return [row["local_port"] for row in map(json.loads, self.stdout.splitlines()) if "note" not in row]

    @property
    def notes(self) -> list[str]:
        """Of those in JSON."""
        return [row["note"] for row in map(json.loads, self.stdout.splitlines()) if "note" in row]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    directory = tmp_path / "users" / str(GAMES)
    directory.mkdir(parents=True)
    return Log(directory)


def nothing() -> None:
    """Time passes."""


def test_a_page(log: Log) -> None:
    """Names for numbers, sizes with units, columns; ends by itself if it is not to follow."""
    log.add(
        "in,148213,192.0.2.7,198.51.100.4,1700000000.418023109,148213,0,103,443,51544,tcp"
        ",session-3.scope,4211,curl\n"
        "out,61,2001:db8::1,2001:db8::2,1700000001.5,148213,61,1,5353,22,udp,,0,\n"
        "in,9,,,1700000002.000000000,148222,61,1,0,0,icmp,a.service,0,\n"
    )

    ran = Ran(log, "--no-follow")

    assert (ran.code, ran.stderr) == (0, "")
    assert ran.stdout == (
        "# log of games (5)\n"
        "TIME                    DIR       SIZE  PKTS  PROTO  LOCAL               REMOTE            "
        "PROCESS     UNIT\n"
        "Nov 14 22:13:20.418023  in   144.7 KiB   103  tcp    198.51.100.4:51544  192.0.2.7:https   "
        "curl[4211]  session-3.scope\n"
        "Nov 14 22:13:21.500000  out       61 B     1  udp    [2001:db8::1]:mdns  [2001:db8::2]:22  "
        "-           -\n"
        "Nov 14 22:13:22.000000  in         9 B     1  icmp   *                   *                 "
        "-           a.service\n"
    )


def test_json(log: Log) -> None:
    """An object a line: keys as in flows, whose log it is, the exact time, names where there are any."""
    log.add(
        "in,148213,192.0.2.7,198.51.100.4,1700000000.418023109,148213,17,103,443,51544,tcp"
        ",a.service,4211,curl\n"
    )

    ran = Ran(log, "--no-follow --json")

    assert json.loads(ran.stdout) == {
        "uid": 5, "user": "games", "time": 1700000000.418023109, "time_ns": 1700000000418023109,
        "direction": "in", "bytes": 148213, "packets": 103, "protocol": "tcp",
        "local": "198.51.100.4", "local_port": 51544, "remote": "192.0.2.7", "remote_port": 443,
        "remote_service": "https", "pid": 4211, "process": "curl", "unit": "a.service",
        "total_in": 148213, "total_out": 17,
    }  # fmt: skip


def test_own_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without -u it is that of who asks."""
    asked = []

    class Mine:
        def call(self, call: Call) -> list[int]:
            asked.append(call.body[0])
            return [os.open(os.devnull, os.O_RDONLY)]

        def close(self) -> None:
            pass

    out = Output(stdout=io.StringIO(), stderr=io.StringIO(), stdin=io.StringIO())
    assert main(["log", "tail", "--no-follow"], lambda: Client(Mine()), out) == 0
    assert asked == [os.getuid()]
    assert isinstance(out.stdout, io.StringIO)
    assert out.stdout.getvalue().startswith(f"# log of {pwd.getpwuid(os.getuid()).pw_name} ")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", range(21, 31)),
        ("-n 3", range(28, 31)),
        ("-n 0", range(1, 31)),
        ("-n 99", range(1, 31)),
        ("-n 2 --port 443", range(29, 31)),
        ("--port 7", [7]),
    ],
)
def test_last_rows(log: Log, options: str, expected: range | list[int]) -> None:
    """Ten, as many as wanted, or all; with a filter the last that match."""
    log.add(log.rows(30))

    assert Ran(log, f"--json --no-follow {options}").ports == list(expected)


def test_last_rows_of_a_long_log(log: Log) -> None:
    """It is read from the end, further back until enough rows match."""
    log.add(log.rows(3 * BLOCK // 80))

    ran = Ran(log, "--json --no-follow -n 3 --port 7")
    assert ran.ports == [7]
    assert Ran(log, "--json --no-follow -n 2").ports == [(3 * BLOCK // 80 - n) % 60000 for n in (1, 0)]


@pytest.mark.parametrize(
    ("option", "number"),
    [
        ("--dir in", 2),
        ("--dir out", 1),
        ("--proto tcp", 1),
        ("--proto 6", 1),
        ("--proto UDP", 1),
        ("--proto 200", 1),
        ("--peer 192.0.2.7", 1),
        ("--peer 192.0.2.0/24", 2),
        ("--peer ::ffff:192.0.2.7", 1),
        ("--peer 2001:db8::/32", 1),
        ("--port 53", 2),
        ("--unit a,b.service", 1),
        (r"--unit dev-sd\x2da.mount", 1),
        ('--process a"b', 1),
        ("--process curl --dir out", 1),
        ("--process curl --dir in", 0),
    ],
)
def test_filters(log: Log, option: str, number: int) -> None:
    """Each, with names as they are and not as they are written."""
    log.add(
        'in,1,192.0.2.7,10.0.0.1,1.0,1,0,1,53,40001,udp,"a,b.service",1,"a""b"\n'
        "out,1,10.0.0.1,192.0.2.9,2.0,1,1,1,40003,53,tcp,dev-sd\\\\x2da.mount,1,curl\n"
        "in,1,2001:db8::7,2001:db8::1,3.0,2,1,1,0,0,200,,0,\n"
    )

    ran = Ran(log, "--json --no-follow " + option)

    assert len(ran.ports) == number


def test_follows(log: Log) -> None:
    """What comes is shown as it comes; a line without its end waits for it; Ctrl-C ends it."""
    half, rest = (whole := log.rows(1))[:20], whole[20:]

    ran = Ran(log, "--json -f", lambda: log.add(half), nothing, lambda: log.add(rest + log.rows(2)), nothing)

    assert ran.ports == [1, 2, 3]
    assert ran.code == ExitCode.INTERRUPTED
    assert log.opened == 1


def test_follows_over_rotation(log: Log) -> None:
    """The end of the old file, then the new one; netmond is asked once for each."""
    log.add(log.rows(2))
    asides: list[Path] = []

    def rotate() -> None:
        log.add(log.rows(3))
        asides.append(log.put_aside())
        log.add(log.rows(2))

    ran = Ran(log, "--json", rotate, lambda: log.pack(asides[0]), lambda: log.add(log.rows(1)), rotate)

    assert ran.ports == list(range(1, 14))
    assert ran.notes == []
    assert log.opened == 3


def test_rotated_and_packed_before_it_was_read(log: Log) -> None:
    """What is missing is said, to the byte, at the place where it is missing."""
    log.add(log.rows(2))

    def rotate() -> None:
        log.add(log.rows(3))
        log.pack(log.put_aside())
        log.add(log.rows(2))

    ran = Ran(log, "--json", rotate)

    assert ran.ports == [1, 2, 6, 7]
    assert ran.notes == [
        "the log was put aside and packed before all of it was read: rows are missing",
        "rows of 300 bytes in and 0 bytes out are missing here",
    ]


def test_a_whole_file_was_missed(log: Log) -> None:
    """Who was asleep for so long learns of it, too."""
    log.add(log.rows(2))

    def rotate_twice() -> None:
        log.put_aside()
        log.add(log.rows(3))
        log.put_aside()
        log.add(log.rows(1))

    assert Ran(log, "--json", rotate_twice).notes == [
        "rows of 300 bytes in and 0 bytes out are missing here"
    ]


@pytest.mark.parametrize("first", [True, False])
def test_what_a_comment_tells_is_not_missing(log: Log, first: bool) -> None:
    """Lost packets and those not drawn into a sample are in the totals of the line that says so."""
    log.add(log.rows(1))

    def rotate() -> None:
        lost = (
            "# skipped: packets=3 in_bytes=300 out_bytes=0 timestamp=1700000001.5 total_in=400 total_out=0\n"
        )
        log.rows(3)
        if not first:
            log.add(lost)
        log.put_aside()
        log.add((lost if first else "") + log.rows(1))

    assert Ran(log, "--json", rotate).notes == ["skipped: packets=3 in_bytes=300 out_bytes=0"]


@pytest.fixture
def _tenths(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which each look takes a tenth of a second."""
    ticks = count()
    monkeypatch.setattr(logtail, "Follower", partial(Follower, clock=lambda: next(ticks) / 10))


@pytest.mark.usefixtures("_tenths")
def test_log_that_was_removed(log: Log) -> None:
    """It goes on when there is one again; until then netmond is asked ever more rarely."""
    log.add(log.rows(1))

    def again() -> None:
        log.begin()
        log.add(log.rows(1))

    ran = Ran(log, "--json", log.path.unlink, *[nothing] * 1000, again, *[nothing] * 100)

    assert ran.ports == [1, 2]
    assert ran.notes == []
    assert log.opened < 50


@pytest.mark.usefixtures("_tenths")
def test_netmond_is_away(log: Log) -> None:
    """It is said once why there is no next file; rows of the present one are shown all the same."""
    away = CtlError("netmond is not running; start it", ExitCode.NOT_RUNNING)

    def stop() -> None:
        log.put_aside()
        log.trouble = away

    def back() -> None:
        log.trouble = None
        log.add(log.rows(1))

    ran = Ran(log, "--json", lambda: log.add(log.rows(1)), stop, *[nothing] * 200, back, *[nothing] * 100)

    assert ran.ports == [1, 2]
    assert ran.notes == ["waiting: netmond is not running; start it"]


def test_no_longer_allowed(log: Log) -> None:
    """Whoever may not read the next file gets the error and its exit code."""

    def deny() -> None:
        log.put_aside()
        log.trouble = NotAllowed("you may not")

    ran = Ran(log, "", deny, nothing)

    assert (ran.code, ran.stderr) == (4, "netmonctl: you may not\n")


def test_no_log(log: Log) -> None:
    """One line, and the exit code of what is unknown."""
    log.path.unlink()

    ran = Ran(log, "")

    assert (ran.code, ran.stdout, ran.stderr) == (5, "", "netmonctl: user 5 has no log yet\n")


def test_log_that_was_cut(log: Log) -> None:
    """Somebody emptied it: from its begin."""
    log.add(log.rows(3))

    def cut() -> None:
        os.truncate(log.path, 0)
        log.add("in,")

    ran = Ran(log, "--json", cut, lambda: log.add(log.rows(1)[3:]))

    assert ran.ports == [1, 2, 3, 4]
    assert ran.notes == ["the log was cut; it is read from its begin"]


def test_directory_with_another_name(log: Log, tmp_path: Path) -> None:
    """It is the same file: nothing is shown twice."""
    log.add(log.rows(2))

    def move() -> None:
        (tmp_path / "users").rename(tmp_path / "people")
        log.path = tmp_path / "people" / str(GAMES) / log.path.name
        log.add(log.rows(1))

    ran = Ran(log, "--json", move, lambda: log.add(log.rows(1)))

    assert ran.ports == [1, 2, 3, 4]
    assert log.opened == 2


def test_rows_that_come_too_fast(log: Log) -> None:
    """Of a flood the last ones are shown, and how many were left out."""
    number = (MAX_BEHIND + 3 * BLOCK) // 70
    log.add(log.rows(1))

    ran = Ran(log, "--json", lambda: log.add(log.rows(number)), nothing)

    (note,) = ran.notes
    left_out = int(note.split()[0])
    assert note == f"{left_out} rows left out: they come faster than they can be shown"
    assert left_out > 1000
    assert len(ran.ports) + left_out == 1 + number
    assert ran.ports[-1] == (1 + number) % 60000


COMMENT = (
    "# lost: packets=7 in_bytes=700 out_bytes=0 since=1700000000.5 timestamp=1700000001.5"
    " total_in=800 total_out=0\n"
)
SHOWN = "# Nov 14 22:13:21.500000  lost: packets=7 in_bytes=700 out_bytes=0 since Nov 14 22:13:20.500000"


def test_comments(log: Log) -> None:
    """Out of the way of the rows; in JSON in their place; only those that belong to what is shown."""
    log.add(log.rows(1) + "# old\n" + log.rows(1) + COMMENT + log.rows(1))

    ran = Ran(log, "--no-follow -n 2 --no-legend")
    assert ran.stderr == f"{SHOWN}\n"
    assert ran.stdout.count("\n") == 2
    lines = [json.loads(line) for line in Ran(log, "--no-follow --json -n 2").stdout.splitlines()]
    assert ["note" in line for line in lines] == [False, True, False]
    assert lines[1] == {
        "note": "lost: packets=7 in_bytes=700 out_bytes=0 since=1700000000.5",
        "time": 1700000001.5, "total_in": 800, "total_out": 0,
    }  # fmt: skip
    assert Ran(log, "--no-follow -n 1").stderr == ""


def test_on_a_terminal(log: Log) -> None:
    """Colours, comments dim among the rows, lines as wide as the screen."""
    log.add(log.rows(1) + COMMENT + log.rows(1))

    ran = Ran(log, "--no-follow --no-legend", terminal=True, width=60)

    first, comment, second = ran.stdout.splitlines()
    assert ran.stderr == ""
    assert first.startswith(
        "\x1b[2mNov 14 22:13:20.000000\x1b[0m  \x1b[32min \x1b[0m".replace("in \x1b[0m", "in")
    )
    assert comment == f"\x1b[2m{SHOWN[:60]}\x1b[0m"
    plain = second.replace("\x1b[2m", "").replace("\x1b[32m", "").replace("\x1b[0m", "")
    assert len(plain) == 60
    assert (
        Ran(log, "--no-follow --full", terminal=True, width=60).stdout.splitlines()[2].endswith("a.service")
    )


def test_without_colours_lines_are_as_wide_as_the_screen(log: Log) -> None:
    """The quick way of making lines cuts them, too."""
    log.add(log.rows(1))

    assert [len(line) for line in Ran(log, "--no-follow --no-legend", width=33).stdout.splitlines()] == [33]


HOSTILE = (
    b"in,1,192.0.2.7,10.0.0.1,1.0,1,0,1,53,40001,udp,\x1b[2J,1,\x9b31m\xff\x00\n",
    b"in,1,\x1b]0;x\x07,10.0.0.1,1.0,2,0,1,53,40001,\x1b[H,u,1,x\n",
    b"in,1,192.0.2.7,10.0.0.1,1.0,3,0,1,53,40001,udp,\\x1b[2J,1,\\u202e\\n\\xff\\\\\n",
    b"# \x1b[2J\xe2\x80\xae\n",
)


def test_nothing_steers_the_terminal(log: Log) -> None:
    """Neither what netmond has escaped, which is told, nor what a damaged file holds."""
    with log.path.open("ab") as file:
        file.writelines(HOSTILE)

    ran = Ran(log, "--no-follow")

    assert all(line.isprintable() for line in (ran.stdout + ran.stderr).splitlines())
    assert r"\x1b[2J" in ran.stdout
    assert r"\u202e\x0a" in ran.stdout
    for line in Ran(log, "--no-follow --json").stdout.splitlines():
        assert line.isascii()
        assert line.isprintable()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x",
        "in,1,192.0.2.7",
        "up,1,192.0.2.7,10.0.0.1,1.0,1,0,1,53,40001,udp,u,1,x",
        "in,one,192.0.2.7,10.0.0.1,1.0,1,0,1,53,40001,udp,u,1,x",
        "in,1,192.0.2.7,10.0.0.1,nan,1,0,1,53,40001,udp,u,1,x",
        "in,1,192.0.2.7,10.0.0.1,1e9.0,1,0,1,53,40001,udp,u,1,x",
        'in,1,192.0.2.7,10.0.0.1,1.0,1,0,1,53,40001,udp,"u,1,x',
        "in,1,192.0.2.7,10.0.0.1,1.0,1,0,1,53,40001,udp,u,1,x,y",
    ],
)
def test_lines_that_are_no_rows(log: Log, line: str) -> None:
    """Counted, not shown, and in nobody's way."""
    log.add(f"{line}\n" + log.rows(1))

    ran = Ran(log, "--no-follow --json")

    assert parse(line) is None
    assert (ran.ports, ran.notes) == ([1], ["1 lines are no rows"])


@pytest.mark.parametrize(
    "text", ["curl", "a,b", 'a"b', r"dev-sd\x2da", "a\nb\t\r\x1b\\n", "é\u2028\U000e0001", "a\\", ""]
)
def test_names_come_back(text: str) -> None:
    """What netmond escapes in names is undone."""
    row = parse(f"in,1,192.0.2.7,10.0.0.1,1.0,1,0,1,53,40001,udp,{csvrows.field(text)},1,x")

    assert row is not None
    assert row.unit == text


def test_bytes_that_are_no_text() -> None:
    """As in netmond's rows they become replacement characters."""
    assert name(csvrows.field(b"a\xffb")) == "a\N{REPLACEMENT CHARACTER}b"


def test_protocols_are_netmonds() -> None:
    """The two programs share no code, but the names."""
    assert PROTOCOLS == THEIR_PROTOCOLS
