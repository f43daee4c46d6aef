"""Captures and paths as their users see them: two pipes, a process of netmond's, programs in the kernel."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kernel.deadline import DEADLINE, eventually
from tests.service.client import Caller
from tests.service.inside import main_pid
from tests.service.programs import Objects, alive, held_by

Options = dict[str, list[Any]]

#: All that passes loopback.
ON_LOOPBACK: Options = {"interfaces": ["as", ["lo"]]}

_MODULES = (b"netmond.frames", b"netmond.path")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One that somebody has started; the descriptors are ours."""

    number: int
    stream: int
    progress: int
    pid: int  #: of its worker
    objects: Objects  #: what it has in the kernel and the daemon has not

    def end(self) -> dict[str, Any]:
        """Waits for the last line of its progress: why it ended, and its figures."""
        return dict(json.loads(read_all(self.progress).splitlines()[-1]))

    def leave(self) -> None:
        """Reads no more: the pipe of the stream has no reader then."""
        with open("/dev/null", "rb") as nothing:
            os.dup2(nothing.fileno(), self.stream, inheritable=False)

    def is_gone(self) -> bool:
        """Whether nothing of it is left: no process, no program, link or map."""
        return not Path(f"/proc/{self.pid}").exists() and not alive(self.objects)

    def wait_until_gone(self) -> None:
        eventually(self.is_gone, "nothing of the session is left")


@contextmanager
def session(caller: Caller, kind: str, options: Options) -> Iterator[Session]:
    """A capture ("Capture") or a path ("Path"); its pipes are closed in the end."""
    before = workers()
    number, *files = caller.call(f"Start{kind}", ("a{sv}",), options)
    stream, progress = (caller.take(file) for file in files)
    (pid,) = workers() - before
    shared = held_by(main_pid())
    objects = {name: ids - shared[name] for name, ids in held_by(pid).items()}
    assert objects["prog"]
    try:
        yield Session(number=number, stream=stream, progress=progress, pid=pid, objects=objects)
    finally:
        os.close(stream)
        os.close(progress)


def workers() -> set[int]:
    """Process ids of all workers of sessions."""
    found = set()
    for directory in Path("/proc").iterdir():
        with suppress(OSError):
            if directory.name.isdecimal():
                words = (directory / "cmdline").read_bytes().split(b"\0")
                if set(words) & set(_MODULES):
                    found.add(int(directory.name))
    return found


def read_all(pipe: int) -> bytes:
    """What is in a pipe and comes until its other end is closed."""
    data = b""
    while True:
        assert select.select([pipe], [], [], DEADLINE)[0], f"nothing comes; so far: {data[-200:]!r}"
        piece = os.read(pipe, 1 << 20)
        if not piece:
            return data
        data += piece
