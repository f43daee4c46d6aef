"""Attaches the loaded programs, and takes them off again.

Everything is a bpf_link where the kernel has one: pinned for the next daemon, or gone with this one, however
it ends. Only tc on kernels before 6.6 has none; there a filter stays behind after SIGKILL, and the next
start puts its own in its place, or removes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from netmond.errors import KernelError
from netmond.kernel import libbpf, programs
from netmond.kernel.pins import Links

#: Where our filter sits in clsact: a priority nobody else is likely to use marks it as ours.
_TC_HANDLE, _TC_PRIORITY = 1, 0xC0DE

_XDP_FLAGS = {"xdp": libbpf.XDP_FLAGS_DRV_MODE, "xdp-generic": libbpf.XDP_FLAGS_SKB_MODE}

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


def attach_meter(loaded: Mapping[str, int], cgroup: Path, links: Links) -> ExitStack:
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
            create = partial(libbpf.create_link, loaded[name], directory, attach_type)
            stack.callback(links.attach(name, loaded[name], create).close)
    except KernelError:
        stack.close()
        raise
    finally:
        os.close(directory)
    return stack


class Attachment:
    """An interface with our programs on it; `hook` says which kind: tcx, tc, xdp or xdp-generic."""

    def __init__(self, loaded: Mapping[str, int], ifindex: int, mode: str, links: Links) -> None:
        """mode: ``auto`` (tc both ways), ``tc``, ``xdp`` (native), ``xdp-generic``. KernelError: refused."""
        with ExitStack() as stack:
            if mode in _XDP_FLAGS:
                self._leave(links, ifindex, "interface_ingress", *(_XDP_FLAGS.keys() - {mode}))
                _remove_filter("interface_ingress", ifindex, libbpf.TC_INGRESS)
                program = loaded["interface_xdp"]
                create = partial(libbpf.create_link, program, ifindex, programs.XDP, _XDP_FLAGS[mode])
                stack.callback(links.attach(f"{ifindex}-{mode}", program, create).close)
                self._attach_tc(stack, loaded, ifindex, _TC[1:], links)
                self.hook: str = mode
            else:
                self._leave(links, ifindex, *_XDP_FLAGS)
                self.hook = self._attach_tc(stack, loaded, ifindex, _TC, links)
            self._stack = stack.pop_all()

    @staticmethod
    def _leave(links: Links, ifindex: int, *hooks: str) -> None:
        """Ends what an earlier daemon attached elsewhere, so that no frame is counted twice."""
        for hook in hooks:
            links.drop(f"{ifindex}-{hook}")

    @staticmethod
    def _attach_tc(
        stack: ExitStack,
        loaded: Mapping[str, int],
        ifindex: int,
        hooks: Iterable[tuple[str, int, int]],
        links: Links,
    ) -> str:
        hook = "tcx"
        for name, direction, tcx in hooks:
            # Before others: most of them end the chain. We always hand the packet on.
            create = partial(libbpf.create_link, loaded[name], ifindex, tcx, libbpf.BPF_F_BEFORE)
            try:
                stack.callback(links.attach(f"{ifindex}-{name}", loaded[name], create).close)
            except KernelError:  # before 6.6
                attach_filter(loaded[name], ifindex, direction)
                stack.callback(_detach_filter, ifindex, direction)
                hook = "tc"
            else:
                _remove_filter(name, ifindex, direction)
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
            removed += _remove_filter(name, ifindex, direction)
    return removed


def _remove_filter(name: str, ifindex: int, direction: int) -> bool:
    """Removes a filter of that name from our place in clsact; False: there was none."""
    program = libbpf.tc_query(ifindex, direction, handle=_TC_HANDLE, priority=_TC_PRIORITY)
    if not program or not name.startswith(libbpf.program_name(program) or "-"):
        return False
    _detach_filter(ifindex, direction)
    return True
