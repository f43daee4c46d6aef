"""Where netmonctl's results go: watch, pager, terminal."""

from __future__ import annotations

import io
import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from netmonctl import remote
from netmonctl.errors import CtlError
from netmonctl.output import Answer, Output, dump, present, standard_output
from netmonctl.render import Style


class Clock:
    """Time that only passes in sleep, or as much as a `fetch` says it took."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 3))
        self.time += seconds


def asked(**options: Any) -> Namespace:
    args = Namespace(
        full=False,
        si=False,
        watch=None,
        json="off",
        no_legend=False,
        no_pager=False,
        title="netmonctl users",
    )
    for name, value in options.items():
        setattr(args, name, value)
    return args


def made(clock: Clock | None = None, **attributes: Any) -> Output:
    clock = clock or Clock()
    return Output(
        stdout=io.StringIO(),
        stderr=io.StringIO(),
        stdin=io.StringIO(),
        now=clock.now,
        sleep=clock.sleep,
        **attributes,
    )


def written(out: Output) -> str:
    assert isinstance(out.stdout, io.StringIO)
    return out.stdout.getvalue()


def noted(out: Output) -> str:
    assert isinstance(out.stderr, io.StringIO)
    return out.stderr.getvalue()


class Counter:
    """Answers 1, 2, 3…"""

    def __init__(self, note: str = "", lines: int = 1) -> None:
        self.count = 0
        self.note = note
        self.lines = lines

    def __call__(self) -> Answer:
        self.count += 1
        lines = [f"turn {self.count} line {index}" for index in range(self.lines)]
        return Answer(data=[{"turn": self.count}], text=lambda _: lines, note=self.note)


def test_watch_into_a_pipe() -> None:
    """Each turn appends a dated block; a remark is made once, on standard error."""
    out = made(turns=3)
    present(asked(watch=5.0, no_legend=True), out, Counter(note="own figures only"))

    assert written(out) == "turn 1 line 0\n\nturn 2 line 0\n\nturn 3 line 0\n"
    assert noted(out) == "own figures only\n"


def test_watch_says_when() -> None:
    """The first line of a block names interval, command and time."""
    out = made(turns=1)
    present(asked(watch=5.0), out, Counter())

    first, blank, rest = written(out).splitlines()
    assert first.startswith("Every 5 s: netmonctl users    ")
    assert "2023-11-1" in first
    assert (blank, rest) == ("", "turn 1 line 0")


def test_watch_json_is_one_document_a_line() -> None:
    """A program can read turn by turn, whatever --json said."""
    out = made(turns=3)
    present(asked(watch=2.0, json="pretty"), out, Counter())

    assert [json.loads(line) for line in written(out).splitlines()] == [
        [{"turn": 1}],
        [{"turn": 2}],
        [{"turn": 3}],
    ]


def test_watch_repaints_in_place() -> None:
    """A terminal is cleared once, then overwritten; what was longer before is erased."""
    out = made(turns=2, height=1, style=Style(width=1), measure=lambda: os.terminal_size((80, 24)))
    present(asked(watch=5.0, no_legend=True), out, Counter())

    assert written(out) == (
        "\x1b[H\x1b[2Jturn 1 line 0\x1b[K\n\x1b[J"  # first
        "\x1b[Hturn 2 line 0\x1b[K\n\x1b[J"
    )


def test_watch_never_scrolls_a_terminal() -> None:
    """What does not fit is replaced by one line that says so."""
    out = made(turns=1, height=5, style=Style(width=11), measure=lambda: os.terminal_size((11, 5)))
    present(asked(watch=5.0, no_legend=True), out, Counter(lines=7))

    lines = written(out).replace("\x1b[K", "").replace("\x1b[H\x1b[2J", "").split("\n")
    assert lines == ["turn 1 line", "turn 1 line", "turn 1 line", "(4 more lin", "\x1b[J"]


def test_watch_keeps_its_rhythm() -> None:
    """The time a turn took is taken off the pause; a turn that took too long skips whole periods."""
    clock = Clock()
    took = iter((1.0, 2.5, 11.0, 0.0))

    def fetch() -> Answer:
        clock.time += next(took)
        return Answer(data=[], text=lambda _: [])

    present(asked(watch=5.0), made(clock, turns=4), fetch)

    assert clock.slept == [4.0, 2.5, 4.0]


def test_json_is_ascii() -> None:
    """Names in JSON cannot steer a terminal, and read back unchanged."""
    name = "evil\x1b[31m\x9b\u202e"
    assert dump([{"user": name}], "short") == '[{"user":"evil\\u001b[31m\\u009b\\u202e"}]'
    assert json.loads(dump(name, "pretty")) == name


def test_pager_only_for_long_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A screenful is printed, more is given to $SYSTEMD_PAGER, less cannot start a shell."""
    seen = tmp_path / "seen"
    pager = tmp_path / "pager"
    pager.write_text(f'#!/bin/sh\necho "$1 $LESSSECURE $LESS" > {seen}\ncat >> {seen}\n')
    pager.chmod(0o755)
    monkeypatch.setenv("SYSTEMD_PAGER", f"{pager} --flag")
    monkeypatch.delenv("SYSTEMD_LESS", raising=False)

    short = made(height=5)
    present(asked(), short, Counter(lines=4))
    unpaged = made(height=5)
    present(asked(no_pager=True), unpaged, Counter(lines=5))

    assert written(short).count("\n") == 4
    assert written(unpaged).count("\n") == 5
    assert not seen.exists()

    paged = made(height=5)
    present(asked(), paged, Counter(lines=5))

    assert written(paged) == ""
    assert seen.read_text().splitlines()[:2] == ["--flag 1 FRSXMK", "turn 1 line 0"]


@pytest.mark.parametrize("pager", ["", "cat"])
def test_pager_can_be_switched_off(pager: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty pager and cat both mean none, as in systemctl."""
    monkeypatch.setenv("SYSTEMD_PAGER", pager)
    out = made(height=2)
    present(asked(), out, Counter(lines=7))

    assert written(out).count("\n") == 7


def test_pager_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no pager to be found the text is printed."""
    monkeypatch.setenv("SYSTEMD_PAGER", "/nonexistent/pager")
    monkeypatch.setattr("subprocess.Popen", _refuse)
    out = made(height=2)
    present(asked(), out, Counter(lines=7))

    assert written(out).count("\n") == 7


def _refuse(*_: Any, **__: Any) -> None:
    raise FileNotFoundError


class _Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "colour"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_colour_on_terminals(
    variables: dict[str, str], colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colour needs a terminal that can do it and a person who has not declined it (NO_COLOR)."""
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout", _Terminal())

    assert standard_output().style.colour is colour


def test_pipe_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Into a pipe: no colour, no width, whatever TERM says."""
    monkeypatch.setenv("TERM", "xterm")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        out = standard_output()

    assert (out.style, out.terminal) == (Style(), False)


def test_ssh_command() -> None:
    """Everything is quoted for the far shell, and a host cannot be an option of ssh."""
    words = remote.command("root@far", ["flows", "--unit", "a b;$(x)"], terminal=False)

    assert words == ["ssh", "--", "root@far", "netmonctl flows --unit 'a b;$(x)'"]
    assert remote.command("far", ["top"], terminal=True)[:3] == ["ssh", "-t", "--"]


@pytest.mark.parametrize("host", ["", "-oProxyCommand=x", "a b", "a\nb"])
def test_ssh_host(host: str) -> None:
    """What is no host name never reaches ssh."""
    with pytest.raises(CtlError):
        remote.command(host, [], terminal=False)
