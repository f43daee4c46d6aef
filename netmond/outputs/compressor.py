"""Compresses rotated files in a thread of its own: a rotation never waits for it.

zlib leaves Python to the others meanwhile, and gzip's level 1 makes 190 MB/s. When it falls behind all the
same, files stay plain for longer, and the caps, which count them as they are, delete the oldest. What is
interrupted (`drop`, `close`, SIGKILL) is begun anew by a later `submit`.

The thread has no lower priority: whoever is next to run Python waits until the thread has had its turn, so a
thread that gets no CPU would stall the writer.
"""

from __future__ import annotations

import logging
import os
import threading
import zlib
from collections.abc import Callable

from netmond.outputs import rotated
from netmond.outputs.files import Replacement, open_directory, open_file, remove
from netmond.outputs.userlog import GZIP

log = logging.getLogger(__name__)

BLOCK = 1 << 18

#: The fastest of gzip's levels. Its default, 6, takes four times as long to make files a quarter smaller.
_LEVEL = 1


class Compressor:
    """The thread, and the users whose directories it shall bring in order, each once."""

    def __init__(self, log_dir: str, changed: Callable[[int], None]) -> None:
        """`changed` is told, in the thread, of whose files have become others."""
        self._log_dir = log_dir
        self._changed = changed
        self._condition = threading.Condition()
        self._waiting: dict[int, bool] = {}  # whether to look at all files, by user
        self._current: int | None = None
        self._interrupted = self._closing = False
        self._problems: dict[int, set[str]] = {}  # what stood in the way at the last look at all files
        self._thread = threading.Thread(target=self._work, name="compressor", daemon=True)

    def submit(self, uid: int, *, everything: bool = False) -> bool:
        """Have a user's rotated files compressed, or everything finished; False if that waits already."""
        with self._condition:
            is_new = uid not in self._waiting
            self._waiting[uid] = self._waiting.get(uid, False) or everything
            self._condition.notify_all()
        if self._thread.ident is None:
            self._thread.start()
        return is_new

    def drop(self, uid: int) -> None:
        """Leave a user's directory alone from now on; waits for no more than the block in hand."""
        with self._condition:
            self._waiting.pop(uid, None)
            if self._current == uid:
                self._interrupted = True
                self._condition.wait_for(lambda: self._current != uid)

    def settle(self, seconds: float) -> bool:
        """Wait until nothing is left to do; False if that takes longer."""
        with self._condition:
            return self._condition.wait_for(lambda: not self._waiting and self._current is None, seconds)

    def close(self) -> None:
        """End the thread; what waits is left as it is."""
        with self._condition:
            self._waiting.clear()
            self._interrupted = self._closing = True
            self._condition.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            uid, everything = job
            try:
                self._bring_in_order(uid, everything)
            except OSError:
                pass  # the directory is gone, or no longer ours
            finally:
                self._changed(uid)
                with self._condition:
                    self._current = None
                    self._condition.notify_all()

    def _next(self) -> tuple[int, bool] | None:
        with self._condition:
            self._condition.wait_for(lambda: self._waiting or self._closing)
            if self._closing:
                return None
            self._current = next(iter(self._waiting))
            self._interrupted = False
            return self._current, self._waiting.pop(self._current)

    def _bring_in_order(self, uid: int, everything: bool) -> None:
        users = os.open(f"{self._log_dir}/users", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            directory = open_directory(str(uid), users, reader=uid, make=False)
        finally:
            os.close(users)
        try:
            problems = finish(directory, uid, lambda: self._interrupted, everything=everything)
        finally:
            os.close(directory)
        if everything:
            told = {f"{problem.filename}: {problem.strerror}" for problem in problems}
            for problem in sorted(told - self._problems.get(uid, set())):
                log.warning("CSV: %s/users/%d/%s", self._log_dir, uid, problem)
            self._problems.pop(uid, None)
            if told:
                self._problems[uid] = told


def finish(
    directory: int, uid: int, interrupted: Callable[[], bool], *, everything: bool = True
) -> list[OSError]:
    """Compress what is rotated, remove what was half done; what stands in the way is left and returned.

    With `everything` all logs get their access, too.
    """
    files = {file.name: file for file in rotated.listing(directory, uid)[1]}
    problems = []
    for name in sorted(os.listdir(directory)) if everything else list(files):
        try:
            if interrupted():
                break
            if name.endswith(".gz.tmp"):
                os.unlink(name, dir_fd=directory)
            elif name in files and not files[name].is_compressed:
                if f"{name}.gz" in files or not files[name].size:
                    remove(name, directory)
                else:
                    compress(name, directory, uid, interrupted)
            elif everything and (name in files or name.endswith(".log")):
                os.close(open_file(name, directory, os.O_RDONLY, uid))
        except FileNotFoundError:
            continue  # rotated or deleted meanwhile
        except OSError as error:
            error.filename = name
            problems.append(error)
    return problems


def compress(name: str, directory: int, uid: int, interrupted: Callable[[], bool]) -> None:
    """Replace a rotated file by its whole lines, compressed; at every moment one of them is there, whole.

    Does nothing if interrupted, or if the file is deleted meanwhile, which empties it first.
    """
    try:
        with (
            open(open_file(name, directory, os.O_RDONLY, uid), "rb", buffering=0) as plain,
            Replacement(f"{name}.gz", directory, uid) as packed,
        ):
            stream, rest = zlib.compressobj(_LEVEL, wbits=GZIP), b""
            left = os.fstat(plain.fileno()).st_size
            while left > 0:
                block = plain.read(BLOCK)
                if not block or interrupted():
                    raise _Abandoned
                left -= len(block)
                lines, newline, rest = (rest + block).rpartition(b"\n")
                _write(packed, stream.compress(lines + newline))
            _write(packed, stream.flush())
            os.fsync(packed)
    except _Abandoned:
        return
    remove(name, directory)


class _Abandoned(Exception):
    """Compression is not to be completed."""


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
