"""Times BPF programs with BPF_PROG_TEST_RUN (bpf(2)), several of them in turn.

A time is the mean of many runs of one program on one packet, less the mean of the empty program taken just
before, so that what the kernel's loop costs falls out.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from ctypes import c_int, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


class _Options(ctypes.Structure):
    """struct bpf_test_run_opts, <bpf/bpf.h>."""

    _fields_ = (
        ("sz", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    )


def skb_context(*, ingress_ifindex: int = 0, segments: int = 0, segment: int = 0) -> bytes:
    """struct __sk_buff, <linux/bpf.h>, with the few fields that a test run takes."""
    context = bytearray(192)
    struct.pack_into("=I", context, 36, ingress_ifindex)
    struct.pack_into("=I", context, 164, segments)
    struct.pack_into("=I", context, 176, segment)
    return bytes(context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A program (its descriptor), the frame it gets, and what is done just before it is timed."""

    program: int
    frame: bytes
    context: bytes = b""
    prepare: Callable[[], None] | None = None

    def time(self, repeat: int) -> float:
        """The mean time of a run in ns."""
        if self.prepare:
            self.prepare()
        options = _Options(
            sz=ctypes.sizeof(_Options),
            data_in=ctypes.cast(ctypes.create_string_buffer(self.frame, len(self.frame)), c_void_p),
            data_size_in=len(self.frame),
            repeat=repeat,
        )
        if self.context:
            options.ctx_in = ctypes.cast(
                ctypes.create_string_buffer(self.context, len(self.context)), c_void_p
            )
            options.ctx_size_in = len(self.context)
        result = _libbpf.bpf_prog_test_run_opts(self.program, ctypes.byref(options))
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return float(options.duration)


_libbpf = ctypes.CDLL("libbpf.so.1")
_libbpf.bpf_prog_test_run_opts.argtypes = [c_int, c_void_p]


@contextmanager
def one_cpu() -> Iterator[None]:
    """Stays on one CPU: its counters, its caches."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def beyond_empty(
    runs: Mapping[Name, tuple[Run, Run]], *, rounds: int, repeat: int
) -> dict[Name, list[float]]:
    """For each name, of (program, empty program), the additional ns of a run, once a round.

    There is one round more than that: what the first one pays is not of interest.
    """
    costs: dict[Name, list[float]] = {name: [] for name in runs}
    with one_cpu():
        for _ in range(1 + rounds):
            for name, (run, empty) in runs.items():
                costs[name].append(-empty.time(repeat) + run.time(repeat))
    return {name: samples[1:] for name, samples in costs.items()}
