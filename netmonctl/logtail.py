"""log tail: a user's log as it grows, with names in the place of numbers."""

from __future__ import annotations

import os
import select
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TextIO

from netmonctl import logtail_rows
from netmonctl.arguments import Commands, add_options
from netmonctl.client import Client
from netmonctl.logtail_file import Follower, Lines, Note
from netmonctl.logtail_names import Hosts
from netmonctl.logtail_rows import Comment, Continuity, Filter, Row, comment, parse
from netmonctl.logtail_text import Table, values
from netmonctl.output import Output, dump
from netmonctl.user import named, resolved

#: Rows shown at first, as tail(1) has it.
LINES = 10

#: Seconds between two looks at a file that does not grow.
PAUSE = 0.1

#: How the line of column names begins.
_HEADER = "direction,"

FILTERS = ("direction", "port", "peer", "protocol", "unit", "process")


def add_parser(commands: Commands) -> None:
    """The verb's command line."""
    parser = commands.add(
        "tail", run, "the last rows of a user's log, one's own by default, and those that come"
    )
    add_options(parser, "user", *FILTERS, "lines", "follow", "no_follow", "resolve", "full", "si")


def run(args: Namespace, client: Client, out: Output) -> None:
    uid = resolved(args.user) if args.user is not None else os.getuid()
    wanted = _filter(args)
    follower = Follower(lambda: client.open_log(uid))
    try:
        printer = _Printer(args, out, uid, wanted)
        printer.first(follower, LINES if args.lines is None else args.lines)
        if args.no_follow:
            return
        for event in follower.events():
            if isinstance(event, Lines):
                printer.lines(event)
            elif isinstance(event, Note):
                printer.note(event.text)
            elif _is_left(out.stdout):
                raise BrokenPipeError
            else:
                out.sleep(PAUSE)
    finally:
        follower.close()


def _filter(args: Namespace) -> Filter:
    return Filter(
        direction=args.direction,
        port=args.port,
        peer=None if args.peer is None else logtail_rows.peer(args.peer),
        protocol=None if args.protocol is None else logtail_rows.protocol(args.protocol),
        unit=args.unit,
        process=args.process,
    )


def _is_left(stream: TextIO) -> bool:
    """Whether it is a pipe that nobody reads any more, which else only the next row would show."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except OSError:  # it is no file
        return False


class _Printer:
    """Shows the rows somebody wants to see, and what there is to say about them."""

    def __init__(self, args: Namespace, out: Output, uid: int, wanted: Filter) -> None:
        self._out = out
        self._user = {"uid": uid, "user": named(uid)}
        self._wanted = wanted
        self._json = args.json != "off"
        self._bare = args.no_legend
        self._hosts = Hosts() if args.resolve else None
        width = None if args.full else out.style.width
        self._table = Table(replace(out.style, width=width, si=args.si), self._hosts)
        self._continuity = Continuity()

    def first(self, follower: Follower, count: int) -> None:
        """The last `count` rows there are, 0 for all of the file, and the remarks among them."""

        def enough(lines: list[str]) -> bool:
            return count > 0 and sum(map(self._wanted, filter(None, map(parse, lines)))) >= count

        items = list(self._items(follower.file.last(enough), fresh=False))
        places = [place for place, item in enumerate(items) if isinstance(item, Row)]
        items = items[places[-count] if 0 < count < len(places) else 0 :]
        self._begin([item for item in items if isinstance(item, Row)])
        self._show(items)

    def lines(self, event: Lines) -> None:
        """What came."""
        self._show(list(self._items(event.lines, event.fresh)))

    def note(self, text: str) -> None:
        """A remark of ours."""
        self._remark({"note": text}, self._table.note(text))

    def _comment(self, comment: Comment) -> None:
        """A remark of the log."""
        data: dict[str, Any] = {"note": comment.text}
        if comment.time:
            totals = {"total_in": comment.total_in, "total_out": comment.total_out}
            data |= {"time": float(comment.time), **totals}
        self._remark(data, self._table.comment(comment))

    def _remark(self, data: dict[str, Any], line: str) -> None:
        """In its place among the rows on a terminal and in JSON, else out of the way of those."""
        if self._json:
            self._print([dump(data, "short")])
        elif self._out.terminal:
            self._print([line])
        else:
            self._out.note(line)

    def _begin(self, rows: list[Row]) -> None:
        """Whose log it is, and the titles of columns that are as wide as these rows need."""
        if not (self._json or self._bare):
            self._table.fit(rows)
            whose = self._table.note(f"log of {self._user['user']} ({self._user['uid']})")
            self._print([whose, self._table.header()])

    def _items(self, lines: list[str], fresh: bool) -> Iterator[Row | Comment | Note]:
        """The rows among some lines that somebody wants to see, and all that is to be said about them."""
        found = [comment(line) if line[:1] == "#" else parse(line) for line in lines]
        known = [item for item in found if item is not None]
        missing_in, missing_out = self._continuity.missing(known, fresh=fresh)
        if missing_in or missing_out:
            yield Note(f"rows of {missing_in} bytes in and {missing_out} bytes out are missing here")
        for item in known:
            if isinstance(item, Comment) or self._wanted(item):
                yield item
        if strange := sum(
            item is None and line[:10] != _HEADER for item, line in zip(found, lines, strict=True)
        ):
            yield Note(f"{strange} lines are no rows")

    def _show(self, items: list[Row | Comment | Note]) -> None:
        if self._hosts is not None:
            rows = [item for item in items if isinstance(item, Row)]
            self._hosts.prefetch({address for row in rows for address in (row.local, row.remote)})
        lines: list[str] = []
        for item in items:
            if isinstance(item, Row):
                lines.append(self._line(item))
            else:
                self._print(lines)
                lines = []
                if isinstance(item, Comment):
                    self._comment(item)
                else:
                    self.note(item.text)
        self._print(lines)

    def _line(self, row: Row) -> str:
        if self._json:
            return dump(self._user | values(row, self._hosts), "short")
        return self._table.line(row)

    def _print(self, lines: list[str]) -> None:
        if lines:
            print("\n".join(lines), file=self._out.stdout, flush=True)
