"""Packets of this machine in a Python program, with whose they are::

    from netmond import capture

    with capture.open(interface="eth0", filter="port 53", user="alice") as frames:
        for frame in frames:
            print(frame.time, frame.direction, frame.process, frame.data.hex())

    async with capture.open(interface="eth0") as frames:
        async for frame in frames:
            ...

It runs ``netmonctl capture`` and reads what that writes: netmond decides who may capture, and asks for a
password where that is possible. Leaving the ``with`` ends the capture. It takes what netmonctl takes, see
netmonctl(1); needs the package netmonctl.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import netmonctl.pcapng as pcapng

#: Bytes read at once: what a pipe holds.
_CHUNK = 1 << 20

#: The netmonctl that this module reads with, whatever lies in the directory that the program runs in.
_NETMONCTL = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from netmonctl.__main__ import main
sys.exit(main())
"""

#: Seconds that netmonctl may take to end when nobody reads any more.
_END = 10.0


class CaptureError(Exception):
    """The capture cannot be started, or ended early; the message is one line that says why."""


class NotRunning(CaptureError):
    """netmond is not there."""


class NotAllowed(CaptureError):
    """netmond does not let this user capture (polkit action org.netmond1.capture)."""


class BadFilter(CaptureError):
    """The filter is none of pcap-filter(7)."""


_ERRORS = {3: NotRunning, 4: NotAllowed}  # by exit status, see netmonctl(1)
_FILTER_ERRORS = ("filter:", "the filter ", "option filter:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame as it passed an interface.

    time: nanoseconds since 1970. direction: ``in`` or ``out``. length: bytes on the wire, of which `data`
    may be the beginning only (`snaplen`). linktype: what `data` begins with: 1 Ethernet, 101 IP itself. Of
    user, uid, process, pid and unit what is unknown is None: packets of the kernel, forwarded ones, ARP.
    """

    time: int
    interface: str
    direction: str
    length: int
    data: bytes
    linktype: int
    user: str | None = None
    uid: int | None = None
    process: str | None = None
    pid: int | None = None
    unit: str | None = None


def open(
    *,
    interface: str | Sequence[str] = (),
    filter: str = "",
    user: str | int | Sequence[str | int] = (),
    process: str | Sequence[str] = (),
    unit: str | Sequence[str] = (),
    pid: int | Sequence[int] = (),
    direction: str | None = None,
    snaplen: int | None = None,
    count: int | None = None,
    duration: float | None = None,
    buffer: int | None = None,
    host: str | None = None,
) -> Capture:
    """A capture, which begins when its ``with`` or ``async with`` is entered.

    interface: one or several, ``any`` for all; none: that of the default route. filter: as tcpdump's,
    pcap-filter(7). user, process, unit, pid: only packets of their sockets. direction: ``in`` or ``out``.
    snaplen: bytes of each frame. count, duration (seconds): when it ends by itself. buffer: KiB for frames
    that wait to be read. host: another machine, over ssh.
    """
    options: list[tuple[str, Sequence[object]]] = [
        ("--interface", _several(interface)), ("--user", _several(user)), ("--process", _several(process)),
        ("--unit", _several(unit)), ("--pid", _several(pid)), ("--direction", _several(direction)),
        ("--snapshot-length", _several(snaplen)), ("--count", _several(count)),
        ("--duration", _several(duration)), ("--buffer-size", _several(buffer)), ("--host", _several(host)),
    ]  # fmt: skip
    words = [f"{flag}={value}" for flag, values in options for value in values]
    return Capture([*words, "--", filter] if filter else words)


def _several(value: Any) -> Sequence[object]:
    """What was given, one or several or nothing, as several."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str | int | float) else tuple(value)


class Capture:
    """The frames of a capture, for ``for`` or ``async for``, in a ``with`` or ``async with``.

    CaptureError when it is entered: it cannot be started; while frames are taken: it ended early.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._reader = pcapng.Reader()
        self._frames: deque[Frame] = deque()
        self._dropped: dict[str, int] = {}
        self._process: subprocess.Popen[bytes]

    @property
    def dropped(self) -> int:
        """Frames that were lost because they were not read fast enough; known when the last has come."""
        return sum(self._dropped.values())

    # -- for programs that wait ------------------------------------------------------------------------

    def __enter__(self) -> Capture:
        self._start()
        try:
            while not self._has_begun:
                self._take(os.read(self._stdout, _CHUNK))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def __iter__(self) -> Capture:
        return self

    def __next__(self) -> Frame:
        while not self._frames:
            if not self._take(os.read(self._stdout, _CHUNK)):
                raise StopIteration
        return self._frames.popleft()

    # -- for programs with an event loop ---------------------------------------------------------------

    async def __aenter__(self) -> Capture:
        self._start()
        try:
            while not self._has_begun:
                self._take(await self._read())
        except BaseException:
            await asyncio.to_thread(self._end)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._end)

    def __aiter__(self) -> Capture:
        return self

    async def __anext__(self) -> Frame:
        while not self._frames:
            if not self._take(await self._read()):
                raise StopAsyncIteration
        return self._frames.popleft()

    async def _read(self) -> bytes:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._stdout, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._stdout)
        return os.read(self._stdout, _CHUNK)

    # -- for both --------------------------------------------------------------------------------------

    def _start(self) -> None:
        command = [sys.executable, "-P", "-c", _NETMONCTL, str(Path(pcapng.__file__).parents[1])]
        command += ["capture", "--write=-", "--no-legend", *self._words]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    @property
    def _stdout(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    @property
    def _has_begun(self) -> bool:
        """netmond describes the interfaces as soon as it captures."""
        return bool(self._reader.interfaces)

    def _take(self, data: bytes) -> bool:
        """A piece of the stream; False at its end. CaptureError: that came early."""
        if not data:
            self._check()
            return False
        for item in self._reader.feed(data):
            if isinstance(item, pcapng.Frame):
                self._frames.append(_frame(item))
            else:
                self._dropped[item.interface.name] = item.dropped or 0
        return True

    def _check(self) -> None:
        assert self._process.stderr is not None
        said = self._process.stderr.read().decode(errors="replace").strip().removeprefix("netmonctl: ")
        status = self._process.wait()
        if status or not self._has_begun:
            kind = BadFilter if said.startswith(_FILTER_ERRORS) else _ERRORS.get(status, CaptureError)
            raise kind(said or f"netmonctl ended with status {status}")

    def _end(self) -> None:
        """netmonctl ends when nobody reads any more, and the capture with it."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdout.close()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stderr.close()


def _frame(frame: pcapng.Frame) -> Frame:
    return Frame(
        time=frame.time,
        interface=frame.interface.name,
        direction=frame.direction,
        length=frame.length,
        data=frame.data,
        linktype=frame.interface.linktype,
        **frame.owner,
    )
