"""Payloads that wait for delivery: on the disk, so that neither an outage nor a crash loses them.

One file for each payload, named by its place in the order; a delivered one is unlinked. There is no index
to repair, and what is delivered at once hardly ever reaches the disk: the kernel writes back what lives for
a while. A file begins with the length and the CRC-32 of what follows: one that was being written when the
process was killed or the power failed is dropped and counted. Nothing is synced: SIGKILL loses nothing that
was appended and repeats nothing that was popped; a power failure may do both to the last half minute.

What cannot be on the disk - it is full, it may not be used, the limit is 0 - stays in memory: the last few.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections import deque
from contextlib import suppress
from pathlib import Path

#: What a file takes from the limit is rounded up to this: most file systems give it whole blocks.
_BLOCK = 4096

#: How much may wait in memory, of which the newest payload may be any size.
MEMORY_PAYLOADS = 64
MEMORY_BYTES = 16 << 20

_HEADER = struct.Struct("<II")  # length and CRC-32 of the payload
_NAME = re.compile(r"[0-9]{20}", re.ASCII)


class Spool:
    """A queue of payloads in order, of at most `limit` bytes on the disk: the oldest make room.

    It never raises for what the file system does: `problem` says what is wrong. For one process and thread.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        self.dropped = 0  #: payloads that made room, were damaged, or could be kept nowhere
        self.problem = ""  #: why payloads cannot be on the disk, and the remedy; empty while they can
        self._directory = directory
        self._limit = limit
        self._files: deque[tuple[int, int]] = deque()  # place in the order, bytes of the limit
        self._memory: deque[tuple[int, bytes]] = deque()  # place in the order, payload
        self._used = self._held = 0  # bytes of the limit, in memory
        self._find()
        self._next = self._files[-1][0] + 1 if self._files else 0
        self._make_room(0)

    def append(self, payload: bytes) -> None:
        """Add the newest payload."""
        number, self._next = self._next, self._next + 1
        size = _size_on_disk(len(payload))
        if size <= self._limit:
            self._make_room(size)
            if self._write(number, payload):
                self._files.append((number, size))
                self._used += size
                return
        self._memory.append((number, payload))
        self._held += len(payload)
        while len(self._memory) > 1 and (len(self._memory) > MEMORY_PAYLOADS or self._held > MEMORY_BYTES):
            self._forget(self._memory)
            self.dropped += 1

    def peek(self) -> bytes | None:
        """The oldest payload, which stays; None if there is none."""
        while self._files or self._memory:
            if not self._is_file_oldest():
                return self._memory[0][1]
            payload = self._read(self._files[0][0])
            if payload is not None:
                return payload
            self._drop()
        return None

    def pop(self) -> None:
        """Remove the oldest payload: it was delivered, or never will be. IndexError if there is none."""
        self._forget(self._files if self._is_file_oldest() else self._memory)

    def is_half_full(self) -> bool:
        """Whether half of the room is taken, on the disk or in memory."""
        return (
            2 * self._used > self._limit
            or 2 * self._held > MEMORY_BYTES
            or 2 * len(self._memory) > MEMORY_PAYLOADS
        )

    def __len__(self) -> int:
        return len(self._files) + len(self._memory)

    def close(self) -> None:
        """What is in memory is lost, and counted; what is on the disk is for the next one to find."""
        self.dropped += len(self._memory)
        self._memory.clear()
        self._files.clear()
        self._used = self._held = 0

    def _find(self) -> None:
        """Take over what an earlier process left."""
        try:
            with os.scandir(self._directory) as entries:
                found = sorted(
                    (int(entry.name), _round_up(entry.stat(follow_symlinks=False).st_size))
                    for entry in entries
                    if _NAME.fullmatch(entry.name)
                )
        except FileNotFoundError:  # it is made when it is needed
            return
        except OSError as error:
            self._note(error)
            return
        self._files.extend(found)
        self._used = sum(size for _, size in found)

    def _make_room(self, size: int) -> None:
        while self._files and self._used + size > self._limit:
            self._drop()

    def _drop(self) -> None:
        self.pop()
        self.dropped += 1

    def _is_file_oldest(self) -> bool:
        return bool(self._files) and not (self._memory and self._memory[0][0] < self._files[0][0])

    def _forget(self, queue: deque[tuple[int, int]] | deque[tuple[int, bytes]]) -> None:
        number, held = queue.popleft()
        if isinstance(held, bytes):
            self._held -= len(held)
            return
        self._used -= held
        with suppress(OSError):
            os.unlink(self._path(number))

    def _write(self, number: int, payload: bytes) -> bool:
        """Whether the payload is on the disk now."""
        path = self._path(number)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._note(error)
            return False
        try:
            with open(fd, "wb", buffering=0) as file:
                rest = memoryview(_HEADER.pack(len(payload), zlib.crc32(payload)) + payload)
                while rest:
                    rest = rest[file.write(rest) :]
        except OSError as error:
            self._note(error)
            with suppress(OSError):
                os.unlink(path)
            return False
        self.problem = ""
        return True

    def _read(self, number: int) -> bytes | None:
        """A payload, or None if it is damaged, gone, or cannot be read."""
        try:
            data = self._path(number).read_bytes()
        except OSError:
            return None
        if len(data) < _HEADER.size:
            return None
        length, checksum = _HEADER.unpack_from(data)
        payload = data[_HEADER.size :]
        return payload if len(payload) == length and zlib.crc32(payload) == checksum else None

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:020d}"

    def _note(self, error: OSError) -> None:
        self.problem = (
            f"{self._directory}: {error.strerror}: what is not delivered is kept in memory, the last of it;"
            " make room, or see that the directory is writable"
        )


def _size_on_disk(length: int) -> int:
    return _round_up(_HEADER.size + length)


def _round_up(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK
