"""Attaches the loaded programs, and takes them off again.

Everything is a bpf_link where the kernel has one: it goes with the daemon, however that ends. Only tc on
kernels before 6.6 has none; there a filter stays behind after SIGKILL, and the next start removes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from netmond.errors import KernelError
from netmond.kernel import libbpf, programs

#: Where our filter sits in clsact: a priority nobody else is likely to use marks it as ours.
_TC_HANDLE, _TC_PRIORITY = 1, 0xC0DE

_METER = (
    ("meter_ingress", programs.CGROUP_INET_INGRESS),
    ("meter_egress", programs.CGROUP_INET_EGRESS),
    ("socket_created", programs.CGROUP_INET_SOCK_CREATE),
    ("socket_released", programs.CGROUP_INET_SOCK_RELEASE),
    ("socket_connects4", programs.CGROUP_INET4_CONNECT),
    ("socket_connects6", programs.CGROUP_INET6_CONNECT),
)
_TC = (
    ("interface_ingress", libbpf.TC_INGRESS, programs.TCX_INGRESS),
    ("interface_egress", libbpf.TC_EGRESS, programs.TCX_EGRESS),
)


def attach_meter(loaded: Mapping[str, int], cgroup: Path) -> ExitStack:
    """Attaches the meter to a cgroup beside whatever others have there; closing the result detaches.

    Links, because a plain attachment at the root would disable systemd's IPAddressDeny= for the whole host.
    """
    try:
        directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(f"cannot open the cgroup {cgroup}: {error.strerror}") from error
    stack = ExitStack()
    try:
        for name, attach_type in _METER:
            stack.callback(os.close, libbpf.create_link(loaded[name], directory, attach_type))
    except KernelError:
        stack.close()
        raise
    finally:
        os.close(directory)
    return stack


class Attachment:
    """An interface with our programs on it; `hook` says which kind: tcx, tc, xdp or xdp-generic."""

    def __init__(self, loaded: Mapping[str, int], ifindex: int, mode: str) -> None:
        """mode: ``auto`` (tc both ways), ``tc``, ``xdp`` (native), ``xdp-generic``. KernelError: refused."""
        with ExitStack() as stack:
            if mode in ("xdp", "xdp-generic"):
                flags = libbpf.XDP_FLAGS_DRV_MODE if mode == "xdp" else libbpf.XDP_FLAGS_SKB_MODE
                link = libbpf.create_link(loaded["interface_xdp"], ifindex, programs.XDP, flags)
                stack.callback(os.close, link)
                self._attach_tc(stack, loaded, ifindex, _TC[1:])
                self.hook: str = mode
            else:
                self.hook = self._attach_tc(stack, loaded, ifindex, _TC)
            self._stack = stack.pop_all()

    @staticmethod
    def _attach_tc(
        stack: ExitStack, loaded: Mapping[str, int], ifindex: int, hooks: Iterable[tuple[str, int, int]]
    ) -> str:
        hook = "tcx"
        for name, direction, tcx in hooks:
            try:
                # Before others: most of them end the chain. We always hand the packet on.
                link = libbpf.create_link(loaded[name], ifindex, tcx, libbpf.BPF_F_BEFORE)
                stack.callback(os.close, link)
            except KernelError:  # before 6.6
                attach_filter(loaded[name], ifindex, direction)
                stack.callback(_detach_filter, ifindex, direction)
                hook = "tc"
        return hook

    def close(self) -> None:
        """Detaches; an interface that is gone has done so itself."""
        self._stack.close()


def attach_filter(program: int, ifindex: int, direction: int) -> None:
    """Attaches to clsact, replacing a filter that an earlier run left."""
    libbpf.tc_attach(program, ifindex, direction, handle=_TC_HANDLE, priority=_TC_PRIORITY)


def _detach_filter(ifindex: int, direction: int) -> None:
    with suppress(KernelError):
        libbpf.tc_detach(ifindex, direction, handle=_TC_HANDLE, priority=_TC_PRIORITY)


def remove_leftovers(ifindexes: Iterable[int]) -> int:
    """Removes tc filters that a killed daemon left on these interfaces; returns how many."""
    removed = 0
    for ifindex in ifindexes:
        for name, direction, _ in _TC:
            program = libbpf.tc_query(ifindex, direction, handle=_TC_HANDLE, priority=_TC_PRIORITY)
            if program and name.startswith(libbpf.program_name(program) or "-"):
                _detach_filter(ifindex, direction)
                removed += 1
    return removed
