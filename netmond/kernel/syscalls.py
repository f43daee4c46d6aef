"""System calls of which libbpf, in the version of Debian 12, knows not all: syscall(2) through ctypes."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
from functools import cache
from pathlib import Path

from netmond.errors import KernelError
from netmond.kernel.libbpf import explain

#: By machine, as uname(2) names it: perf_event_open(2), bpf(2)
_NUMBERS = {
    "x86_64": (298, 321),
    "aarch64": (241, 280),
    "riscv64": (241, 280),
    "ppc64le": (319, 361),
    "s390x": (331, 351),
}

# include/uapi/linux/bpf.h
_BPF_LINK_CREATE = 28
_BPF_NETFILTER = 45
_LINK_CREATE = struct.Struct("=IIII IIiI 16x")  # program, target, type, flags; pf, hook, priority, flags

#: The outermost priorities that are free to use (net/netfilter/nf_bpf_link.c), and how many are tried
_FIRST, _LAST = -(1 << 31) + 1, (1 << 31) - 2
_PRIORITIES = 64

# include/uapi/linux/perf_event.h
_ATTRIBUTES = struct.Struct("=II 40x 8x QQ")  # struct perf_event_attr: type, size; config1, config2
_SET_BPF = 0x40042408  # PERF_EVENT_IOC_SET_BPF
_ENABLE = 0x2400  # PERF_EVENT_IOC_ENABLE
_PERF_FLAG_FD_CLOEXEC = 8

_REFUSALS = {
    errno.EPERM: "the sandbox forbids it, see netmonctl(1), PATH",  # seccomp
    errno.EACCES: "kernel.perf_event_paranoid is above 2, see netmonctl(1), PATH",
    errno.ENOENT: "this kernel has no such function",
    errno.EADDRNOTAVAIL: "this kernel has no such function",
    errno.EINVAL: "this kernel forbids to watch it",  # its own list, or built into its callers
}
_KPROBE = Path("/sys/bus/event_source/devices/kprobe/type")


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _number(which: int) -> int:
    machine = platform.machine()
    if machine not in _NUMBERS:
        raise KernelError(f"not known how to ask a kernel for {machine}")
    return _NUMBERS[machine][which]


def link_netfilter(program: int, family: int, hook: int, *, last: bool) -> int:
    """Attaches to a hook of netfilter in the current network namespace (Linux 6.4); returns a link.

    family: AF_INET or AF_INET6, which are NFPROTO_IPV4 and NFPROTO_IPV6. last: after everything else there,
    or before it; BPF programs share no priority, so the next one that is free is taken. KernelError.
    """
    for step in range(_PRIORITIES):
        priority = _LAST - step if last else _FIRST + step
        attributes = _LINK_CREATE.pack(program, 0, _BPF_NETFILTER, 0, family, hook, priority, 0)
        link = _libc().syscall(_number(1), _BPF_LINK_CREATE, attributes, len(attributes))
        if link >= 0:
            return int(link)
        if ctypes.get_errno() != errno.EBUSY:
            break
    raise KernelError(explain(ctypes.get_errno()))


def attach_kprobe(program: int, function: str) -> int:
    """Attaches to the start of a function of the kernel; returns a descriptor, closing it detaches.

    By an event of perf, which needs no tracefs and leaves nothing behind. KernelError.
    """
    try:
        kind = int(_KPROBE.read_text())
    except OSError:
        raise KernelError("this kernel has no kprobes (CONFIG_KPROBES)") from None
    name = ctypes.create_string_buffer(function.encode())
    attributes = _ATTRIBUTES.pack(kind, _ATTRIBUTES.size, ctypes.addressof(name), 0)
    every_process, a_cpu, no_group = -1, 0, -1  # probes of the kernel run on all CPUs whatever is said
    event = _libc().syscall(_number(0), attributes, every_process, a_cpu, no_group, _PERF_FLAG_FD_CLOEXEC)
    if event < 0:
        code = ctypes.get_errno()
        raise KernelError(_REFUSALS.get(code, explain(code)))
    try:
        fcntl.ioctl(event, _SET_BPF, program)
        fcntl.ioctl(event, _ENABLE, 0)
    except OSError as error:
        os.close(event)
        raise KernelError(explain(error.errno or 0)) from error
    return int(event)
