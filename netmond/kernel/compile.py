"""Compiles and loads BPF programs in a short-lived child, compiler.py.

bcc brings LLVM: 65 MB to import, 50 to 120 more for a compile, never given back. So a child does it and
passes the descriptors of maps and programs over a socketpair (SCM_RIGHTS, unix(7)); when it ends they
live on in the daemon.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from netmond.errors import KernelError
from netmond.kernel.unit import Unit, source_directory

_COMPILER = "netmond.kernel.compiler"  # a program, not imported here
_MAX_DESCRIPTORS = 64
_MAX_REPLY = 1 << 16
_TIMEOUT = 240.0  # seconds; a compile takes less than one, but on a machine busy with its boot it may wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Descriptors by name, owned by whoever holds this. `notes` tells what had to be left out.

    `code` are instructions of functions, with places in `maps` where descriptors of maps are to be.
    """

    programs: Mapping[str, int]
    maps: Mapping[str, int]
    notes: tuple[str, ...]
    code: Mapping[str, bytes] = field(default_factory=dict)

    def close(self) -> None:
        for descriptor in (*self.programs.values(), *self.maps.values()):
            os.close(descriptor)


class Compilation:
    """A child at work on one unit. Start several, then collect: they run side by side."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # The order is a file: a preamble may be larger than what a socket or a pipe takes at once.
        # What the child says is one, too: it reads there itself what the verifier had to say.
        self._said = os.memfd_create("said")
        with theirs, open(os.memfd_create("unit"), "w+b") as order:
            order.write(json.dumps(asdict(unit)).encode())
            order.seek(0)
            environment = {**os.environ, "BCC_KERNEL_SOURCE": str(source_directory() / "kheaders")}
            self._child = subprocess.Popen(
                [sys.executable, "-m", _COMPILER, str(theirs.fileno())],
                pass_fds=(theirs.fileno(), *unit.shared.values()),
                stdin=order,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                env=environment,
                cwd=Path(__file__).resolve().parents[2],
            )
        self._ours.settimeout(_TIMEOUT)

    def result(self) -> Loaded:
        """Waits for the child. KernelError: what failed, in a line."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._ours, _MAX_REPLY, _MAX_DESCRIPTORS)
            for descriptor in descriptors:  # recv_fds() passes no MSG_CMSG_CLOEXEC on
                os.set_inheritable(descriptor, False)
        except OSError as error:
            data, descriptors = b"", []
            self._child.kill()
            reason = f"the compiler did not answer ({error})"
        else:
            reason = ""
        finally:
            self._ours.close()
        self._child.wait()
        with open(self._said, "rb") as file:
            file.seek(0)
            said = file.read().decode(errors="replace").strip().splitlines()
        if not data:
            reason = reason or (said[-1] if said else f"the compiler ended with {self._child.returncode}")
            raise KernelError(f"cannot load {self._unit.source}: {reason}")
        reply = json.loads(data)
        if "error" in reply:
            raise KernelError(f"cannot load {self._unit.source}: {reply['error']}")
        names = reply["programs"]
        return Loaded(
            programs=dict(zip(names, descriptors[: len(names)], strict=True)),
            maps=dict(zip(reply["maps"], descriptors[len(names) :], strict=True)),
            notes=tuple(reply["notes"]),
            code={name: bytes.fromhex(code) for name, code in reply["code"].items()},
        )
