"""Where results go: text through a pager, JSON, or the same again every few seconds."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TextIO

from netmonctl.render import Style, clip, escape, moment

_SHORT = json.JSONEncoder(separators=(",", ":"))  # made once: log tail writes 100,000 of them a second

HOME, ERASE_LINE, ERASE_BELOW, CLEAR = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command found: the JSON form, the text form, and a remark that is neither."""

    data: Any
    text: Callable[[Style], list[str]]
    note: str = ""


@dataclass(slots=True, kw_only=True)
class Output:
    """The three streams and what they can do. `height` None: standard output is no terminal.

    now, sleep, turns, measure: clock, repetitions of `--watch` and terminal size, for tests.
    """

    stdout: TextIO
    stderr: TextIO
    stdin: TextIO
    style: Style = field(default_factory=Style)
    height: int | None = None
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    turns: int | None = None
    measure: Callable[[], os.terminal_size] = shutil.get_terminal_size

    @property
    def terminal(self) -> bool:
        return self.height is not None

    def note(self, text: str) -> None:
        """A remark for the person, out of the way of the figures."""
        print(text, file=self.stderr)

    def resized(self) -> None:
        """Take over the terminal's present size."""
        if self.terminal:
            columns, self.height = self.measure()
            if self.style.width is not None:
                self.style = replace(self.style, width=columns)


def standard_output() -> Output:
    """The process's own streams; colour and width only where a terminal is."""
    # A stream that the parent has closed is None.
    stdin, stdout = sys.stdin or io.StringIO(), sys.stdout or io.StringIO()
    for stream in (stdin, stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    terminal = stdout.isatty()
    size = shutil.get_terminal_size()
    style = Style(
        width=size.columns if terminal else None,
        colour=terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb",
        unicode=(stdout.encoding or "utf-8").lower().replace("-", "") == "utf8",
    )
    return Output(
        stdout=stdout,
        stderr=sys.stderr,
        stdin=stdin,
        style=style,
        height=size.lines if terminal else None,
    )


def present(args: Namespace, out: Output, fetch: Callable[[], Answer]) -> None:
    """Show what `fetch` finds, in the form and as often as `args` say."""
    if args.full:
        out.style = replace(out.style, width=None)
    out.style = replace(out.style, si=args.si)
    if args.watch is not None:
        _watch(args, out, fetch)
        return
    answer = fetch()
    if args.json != "off":
        _page(args, out, dump(answer.data, args.json))
    else:
        _page(args, out, "\n".join(answer.text(out.style)))
    if answer.note:
        out.note(answer.note)


def done(args: Namespace, out: Output, data: Any, sentence: str) -> None:
    """Confirm a change: a sentence, or what netmond returned as JSON."""
    if args.json != "off":
        print(dump(data, args.json), file=out.stdout)
    elif not args.no_legend:
        print(sentence, file=out.stdout)


def dump(data: Any, form: str) -> str:
    """JSON, ASCII only: names cannot steer a terminal that way either."""
    if form == "short":
        return _SHORT.encode(data)
    return json.dumps(data, indent=2)


def _watch(args: Namespace, out: Output, fetch: Callable[[], Answer]) -> None:
    turn = 0
    due = out.now()
    while True:
        answer = fetch()
        if args.json != "off":
            print(dump(answer.data, "short"), file=out.stdout, flush=True)
        else:
            out.resized()
            stamp = f"Every {args.watch:g} s: {escape(args.title)}    {moment(out.now())}"
            lines = [*([] if args.no_legend else [stamp, ""]), *answer.text(out.style)]
            if out.height is not None:
                repaint(out, [*lines, *([answer.note] if answer.note else [])], first=turn == 0)
            else:
                print("\n".join([*([""] if turn else []), *lines]), file=out.stdout, flush=True)
        if answer.note and turn == 0 and not (out.terminal and args.json == "off"):
            out.note(answer.note)
        turn += 1
        if turn == out.turns:
            return
        # Whole periods from the first: neither drifting nor catching up in a burst after a pause.
        due += args.watch * max(1, -(-(out.now() - due) // args.watch))
        out.sleep(max(0.0, due - out.now()))


def repaint(out: Output, lines: list[str], first: bool) -> None:
    """Show these lines in the place of those before, from the top of the terminal."""
    assert out.height is not None
    room = max(1, out.height - 1)
    if len(lines) > room:
        hidden = len(lines) - room + 1
        lines = [*lines[: room - 1], f"({hidden} more lines; the terminal is too low)"]
    width = out.style.width
    fitted = [line if width is None else clip(line, width) for line in lines]
    body = "".join(f"{line}{ERASE_LINE}\n" for line in fitted)
    out.stdout.write((HOME + CLEAR if first else HOME) + body + ERASE_BELOW)
    out.stdout.flush()


def _page(args: Namespace, out: Output, text: str) -> None:
    """Print, through a pager if it would scroll off the screen."""
    if not text:
        return
    if out.height is not None and not args.no_pager and text.count("\n") + 1 >= out.height:
        for command in _pagers():
            if _piped(command, text):
                return
    print(text, file=out.stdout)


def _pagers() -> Iterator[list[str]]:
    for name in ("SYSTEMD_PAGER", "PAGER"):
        if (value := os.environ.get(name)) is not None:
            words = shlex.split(value)
            if not words or words == ["cat"]:
                return
            yield words
            break
    yield from (["less"], ["more"])


def _piped(command: list[str], text: str) -> bool:
    """Whether the pager could be started. less must not offer a shell: it may run as root here."""
    environment = os.environ | {"LESS": os.environ.get("SYSTEMD_LESS", "FRSXMK"), "LESSSECURE": "1"}
    with _without_interrupts():
        try:
            pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
        except OSError:
            return False
        pager.communicate((text + "\n").encode(errors="replace"))
    return True


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C belongs to the pager while there is one."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
