"""A session of ours while it runs: its stream, its figures on the way, Ctrl-C, and its end."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from netmonctl.client import Client, Session
from netmonctl.errors import CtlError
from netmonctl.output import ERASE_LINE, Output

#: Bytes taken at once: what the pipe holds.
CHUNK = 1 << 20

#: Seconds for the last figures to come when the stream has ended.
_LAST = 5.0

#: Why a session ends: what was asked for, and what was not.
_GOOD_ENDS = ("stopped", "count", "duration", "closed")
_ENDS = {"daemon": "netmond stopped", "interface": "the interface is gone", "": "its process died"}


class Running:
    """Reads a session's two pipes, and ends it in an orderly way.

    The first SIGINT, SIGTERM or SIGHUP asks netmond to stop it, and what it still holds comes as before; a
    second one acts as usual. `show`: figures as a line for a terminal's standard error, or None for no such
    line. `sink`: where the output goes; when nobody reads that any more, BrokenPipeError.
    """

    def __init__(
        self,
        client: Client,
        session: Session,
        out: Output,
        *,
        show: Callable[[dict[str, Any]], str] | None = None,
        sink: int | None = None,
    ) -> None:
        self.figures: dict[str, Any] = {}
        self._client, self._session, self._out = client, session, out
        self._stream = session.stream
        self._show = show if out.stderr.isatty() else None
        self._sink = sink
        self._partial = b""

    def __enter__(self) -> Running:
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        for file in (self._stream, self._session.progress, self._woken):
            self._poll.register(file, select.POLLIN)
        if self._sink is not None:
            self._poll.register(self._sink, 0)
        self._before = {
            number: signal.signal(number, self._signalled)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if number != signal.SIGHUP or signal.getsignal(number) == signal.SIG_DFL  # not under nohup(1)
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._as_before()
        # Closing the stream ends the session, whatever it is at.
        for file in (self._stream, self._session.progress, self._woken, self._waker):
            os.close(file)
        self._wipe()

    def chunks(self, pause: float | None = None) -> Iterator[bytes]:
        """All that comes, in pieces; an empty one each time that nothing came for `pause` seconds."""
        while True:
            if not self._wait(self._stream, select.POLLIN, pause):
                yield b""
            elif data := os.read(self._stream, CHUNK):
                yield data
            else:
                return

    def copy(self, sink: int) -> None:
        """All that comes, to the sink, without a look at it: splice(2)."""
        while True:
            self._wait(self._stream, select.POLLIN)
            try:
                if not _splice(self._stream, sink, CHUNK):
                    return
            except BlockingIOError:
                self._wait_for_room(sink)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # It is open for appending, or of a kind that cannot.
                for data in self.chunks():
                    write_all(sink, data)
                return

    def finish(self) -> str:
        """The last figures; why it ended, in words, if that was not what was asked for."""
        progress = select.poll()
        progress.register(self._session.progress, select.POLLIN)
        while progress.poll(_LAST * 1000) and self._read_progress():
            pass
        self._wipe()
        end = str(self.figures.get("end", ""))
        return "" if end in _GOOD_ENDS else _ENDS.get(end, end.removeprefix("error: "))

    def _wait(self, file: int, event: int, pause: float | None = None) -> bool:
        """Until a file is ready, doing meanwhile what is to be done. False: not in so many seconds."""
        while ready := dict(self._poll.poll(None if pause is None else pause * 1000)):
            if self._sink is not None and ready.get(self._sink, 0) & (select.POLLERR | select.POLLHUP):
                raise BrokenPipeError
            if self._session.progress in ready and not self._read_progress():
                self._poll.unregister(self._session.progress)
            if self._woken in ready:
                self._stop()
            if ready.get(file, 0) & (event | select.POLLHUP):
                return True
        return False

    def _wait_for_room(self, sink: int) -> None:
        self._poll.unregister(self._stream)  # which is ready, and may be at its end
        self._poll.register(sink, select.POLLOUT)
        self._wait(sink, select.POLLOUT)
        self._poll.register(sink, 0)
        self._poll.register(self._stream, select.POLLIN)

    def _signalled(self, _signal: int, _frame: FrameType | None) -> None:
        with suppress(BlockingIOError):
            os.write(self._waker, b".")

    def _stop(self) -> None:
        os.read(self._woken, 64)
        self._as_before()
        # One that has ended by itself, or whose netmond is gone, is not to be stopped.
        with suppress(CtlError):
            self._client.stop_session(self._session.number)

    def _as_before(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _read_progress(self) -> bool:
        """Take over the newest figures; False: there will be no more."""
        data = os.read(self._session.progress, CHUNK)
        *lines, self._partial = (self._partial + data).split(b"\n")
        if lines:
            self.figures = json.loads(lines[-1])
            if self._show is not None:
                self._out.stderr.write(f"\r{self._show(self.figures)}{ERASE_LINE}")
                self._out.stderr.flush()
        return bool(data)

    def _wipe(self) -> None:
        """Take the line of figures away."""
        if self._show is not None:
            self._out.stderr.write(f"\r{ERASE_LINE}")
            self._out.stderr.flush()


def _splice(source: int, sink: int, size: int) -> int:
    """As many bytes as can be moved now, 0 at the end; BlockingIOError: none."""
    moved: int = os.splice(source, sink, size, flags=os.SPLICE_F_NONBLOCK)  # type: ignore[attr-defined]
    return moved


def write_all(file: int, data: bytes | memoryview) -> None:
    """All of it, however little is taken at a time."""
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
