"""The main loop of a session's worker: ``python3 -m MODULE DESCRIPTOR``, that of the socket to the daemon.

Orders are ``start`` (options, which the daemon has checked, and given: descriptors by name) and ``stop``
(reason: "daemon" if that is why).
Reports are ``{"figures": …}`` twice a second, and with the last one ``end``, the reason.

The session ends when it is told to, when its time is up, when the job says so, and when either end of it is
gone: the reader of its stream, or the daemon. All programs hang on descriptors of this process, so that
nothing of it is left, however it ends.
"""

from __future__ import annotations

import ctypes
import math
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from netmond.errors import NetmondError
from netmond.footprint import keep_memory, stay_small
from netmond.sessions.progress import Progress
from netmond.sessions.stream import Finished, Stream
from netmond.worker.control import Control

#: Seconds between two reports.
_REPORT = 0.5

#: Seconds from the first record after a rest to taking it, so that batches form; less while the job does not
#: keep up with its ring.
_GATHER = (0.001, 0.02)

#: Seconds that a client has to read the rest of a session that was stopped or whose time is up; and of one
#: that ends with the daemon, which waits a little longer, or is gone; and that all of its end may take then.
_LINGER, _ALONE, _LAST = 30.0, 2.0, 5

#: Bytes that a worker may take beyond what it has when everything is attached.
_ROOM = 512 << 20
#: Open files: two links for each interface.
_FILES = 4096

#: Of this process for the kernel when memory is short, see proc_pid_oom_score_adj(5): before the daemon.
_OOM_SCORE = 500

_PR_SET_PDEATHSIG = 1  # prctl(2)


class Job(Protocol):
    """What a session does."""

    def start(self, options: dict[str, Any], given: dict[str, int], stream: Stream) -> dict[str, Any]:
        """Compiles and attaches; returns a description for the list of sessions. NetmondError: why not.

        May take seconds: if the daemon dies meanwhile, this process is killed.
        """

    def fileno(self) -> int:
        """Of the ring: readable when there is something to take."""

    def take(self) -> bool:
        """Moves what is in the ring to the stream; called when it is readable, and twice a second.

        True: more waits there already, call again without letting it gather. If there is very much, that is
        for the next call: orders are looked at between them. Finished: that was the last.
        """

    def figures(self) -> dict[str, int]:
        """packets, bytes, dropped, filtered: so far."""

    def finish(self, reason: str) -> None:
        """Detaches everything, then moves the rest to the stream, and what comes at its end."""


class Runner:
    """One session."""

    def __init__(self, control: Control, job: Job) -> None:
        self._control = control
        self._job = job
        self._stream: Stream
        self._progress: Progress
        self._alone = False  # there is no daemon any more
        self._began = self._reported = 0.0
        self._ends = math.inf  # when its time is up

    def run(self) -> None:
        """The whole session."""
        if self._start():
            try:
                self._work()
            except Finished as finished:
                reason = finished.reason
            except (NetmondError, OSError) as error:
                reason = f"error: {error}"
            self._finish(reason)
        self._control.close()

    # -- from start to end ---------------------------------------------------------------------------

    def _start(self) -> bool:
        """Waits for the order; False: it could not be carried out, or never came."""
        order = self._first_order()
        if order is None:
            return False
        options, given = order["options"], order["given"]
        self._progress = Progress(given["progress"])
        self._stream = Stream(given["stream"], self._wait_for_reader)
        try:
            with _dying_with_parent():
                description = self._job.start(options, given, self._stream)
        except NetmondError as error:
            self._control.send({"error": str(error), "code": error.code})
            return False
        except OSError as error:
            self._control.send({"error": str(error)})
            return False
        except Finished:  # the client is gone already, and with it whoever would read an answer
            return False
        _limit_memory()
        self._began = self._reported = monotonic()
        self._ends = self._began + (options.get("duration") or math.inf)
        self._control.send({"done": True, "description": description})
        return True

    def _first_order(self) -> dict[str, Any] | None:
        while self._control.is_open:
            select.select([self._control], [], [])
            for order in self._control.orders():
                return order
        return None

    def _work(self) -> None:
        """Until Finished, or an error."""
        least, most = _GATHER
        gather = most
        while True:
            if self._look(self._job.fileno(), select.POLLIN):
                self._pause(gather)
                gather = min(2 * gather, most)
            while self._job.take():
                gather = least
                self._look(timeout=0.0)

    def _finish(self, reason: str) -> None:
        """Whoever reads gets the rest, as long as he goes on reading."""
        if self._alone:
            signal.alarm(_LAST)  # whatever is waited for: nobody else ends this process now
        if reason in ("stopped", "duration", "daemon"):
            self._ends = monotonic() + (_ALONE if reason == "daemon" else _LINGER)
        try:
            self._job.finish(reason)
            self._stream.flush()
        except Finished:
            pass  # he does not
        except (NetmondError, OSError) as error:
            reason = f"error: {error}"
        figures = self._figures()
        self._progress.end({"end": reason, **figures})
        self._stream.close()
        self._control.send({"figures": figures, "end": reason})

    # -- waiting -------------------------------------------------------------------------------------

    def _wait_for_reader(self) -> None:
        """Until the stream can be written to. Finished."""
        while not self._look(self._stream.fileno(), select.POLLOUT):
            pass

    def _pause(self, seconds: float) -> None:
        """Lets this time go by. Finished."""
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            self._look(timeout=left)

    def _look(self, descriptor: int = -1, events: int = 0, timeout: float = math.inf) -> bool:
        """Waits for what is to be done, at most so many seconds or until the next report, and does it.

        Returns whether `descriptor` is ready for these events. Finished: the session is to end.
        """
        poll = select.poll()
        if not self._alone:
            poll.register(self._control, select.POLLIN)
        poll.register(self._stream, 0)  # only POLLERR: nobody reads it any more
        if events:
            poll.register(descriptor, events)
        due = min(self._ends, self._reported + _REPORT) - monotonic()
        ready = dict(poll.poll(math.ceil(1000 * max(0.0, min(timeout, due)))))
        if self._control.fileno() in ready:
            self._take_orders()
        if ready.get(self._stream.fileno(), 0) & select.POLLERR:
            raise Finished("closed")
        now = monotonic()
        if now >= self._ends:
            raise Finished("duration")
        if now >= self._reported + _REPORT:
            self._reported = now
            figures = self._figures()
            self._progress.tell(figures)
            if self._control.flush():  # else the daemon is busy: the next report says it all
                self._control.send({"figures": figures})
        return descriptor in ready

    def _take_orders(self) -> None:
        for order in self._control.orders():
            if order["do"] == "stop":
                self._control.send({"done": True})
                raise Finished(order.get("reason", "stopped"))
        if not self._control.is_open:
            self._alone = True
            raise Finished("daemon")

    def _figures(self) -> dict[str, Any]:
        return {**self._job.figures(), "seconds": round(monotonic() - self._began, 3)}


def main(job: Callable[[], Job]) -> int:
    """Runs a session. `job` makes what it does; if it imports numpy, better only when it is called."""
    stay_small()
    # A service manager, or Ctrl-C, tells all processes at once: this one ends when the daemon has.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    files = min(_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    from netmond.outputs.log import setup_logging

    keep_memory()
    setup_logging("info")
    Runner(Control(socket.socket(fileno=int(sys.argv[1]))), job()).run()
    return 0


@contextmanager
def _dying_with_parent() -> Iterator[None]:
    """Inside, this process is killed when the daemon dies: it does not look after it then."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_PDEATHSIG, 0)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + _ROOM
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
