"""BPF programs of other people: they do nothing but be there, first."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from netmond.kernel import libbpf
from tests.kernel.capture import entered
from tests.kernel.machine import Namespace

# enum bpf_prog_type
SCHED_CLS, XDP = 3, 6


@contextmanager
def stranger(space: Namespace, device: str, kind: int, attach_type: int, verdict: int) -> Iterator[None]:
    """A program on a device that answers every packet with the same verdict."""
    instruction = struct.Struct("=BBhi")  # struct bpf_insn: code, registers, offset, immediate value
    code = instruction.pack(0xB7, 0, 0, verdict) + instruction.pack(0x95, 0, 0, 0)  # r0 = verdict; exit
    library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    program = library.bpf_prog_load(kind, b"stranger", b"GPL", code, 2, None)
    assert program >= 0, os.strerror(ctypes.get_errno())
    with entered(space):
        link = libbpf.create_link(program, space.index(device), attach_type)
    os.close(program)
    try:
        yield
    finally:
        os.close(link)
