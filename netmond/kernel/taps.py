"""Puts the programs of a capture on interfaces, and takes them off.

Links, which are gone with the worker however it ends. Before Linux 6.6 filters of clsact, whose handle is
the worker's process id: a worker that was killed leaves them behind, see remove_leftovers().
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress

from netmond.errors import KernelError
from netmond.kernel import libbpf, netlink, programs

#: Name, place in clsact and in tcx.
_HOOKS = {
    "in": ("capture_ingress", libbpf.TC_INGRESS, programs.TCX_INGRESS),
    "out": ("capture_egress", libbpf.TC_EGRESS, programs.TCX_EGRESS),
}
#: Before others, since most of them end the chain; in clsact by a priority that few have, since only filters
#: of one kind can share one. Also how ours are known.
_PRIORITY = 0xDE

# include/uapi/linux/pkt_sched.h, rtnetlink.h, pkt_cls.h
_PARENTS = {libbpf.TC_INGRESS: 0xFFFFFFF2, libbpf.TC_EGRESS: 0xFFFFFFF3}
_TCMSG = struct.Struct("=BxxxiIII")  # family, interface, handle, parent, info: priority in its high half
_TCA_OPTIONS, _TCA_BPF_NAME = 2, 7


class Tap:
    """Our programs on one interface."""

    def __init__(self, loaded: Mapping[str, int], ifindex: int, directions: Iterable[str]) -> None:
        """directions: ``in``, ``out``. KernelError: refused."""
        with ExitStack() as stack:
            for direction in directions:
                name, place, tcx = _HOOKS[direction]
                try:
                    link = libbpf.create_link(loaded[name], ifindex, tcx, libbpf.BPF_F_BEFORE)
                except KernelError:  # before 6.6
                    handle = os.getpid()
                    libbpf.tc_attach(loaded[name], ifindex, place, handle=handle, priority=_PRIORITY)
                    stack.callback(_detach, ifindex, place, handle)
                else:
                    stack.callback(os.close, link)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Detaches; when it returns no program runs any more (links: tcx_link_release() waits for them)."""
        self._stack.close()


def _detach(ifindex: int, place: int, handle: int) -> None:
    with suppress(KernelError):  # the interface is gone
        libbpf.tc_detach(ifindex, place, handle=handle, priority=_PRIORITY)


def remove_leftovers(ifindexes: Iterable[int], pid: int | None = None) -> int:
    """Removes the filters that a killed worker left on these interfaces; returns how many.

    pid: the worker's, None: any.
    """
    removed = 0
    for ifindex in ifindexes:
        for _, place, _ in _HOOKS.values():
            for handle in list(_filters(ifindex, place)):
                if pid in (None, handle):
                    _detach(ifindex, place, handle)
                    removed += 1
    return removed


def _filters(ifindex: int, place: int) -> Iterator[int]:
    """Handles of the filters of captures."""
    request = _TCMSG.pack(0, ifindex, 0, _PARENTS[place], 0)
    with suppress(KernelError):  # no clsact there
        for answer in netlink.dump(netlink.ROUTE, netlink.RTM_GETTFILTER, request):
            _, _, handle, _, info = _TCMSG.unpack_from(answer)
            options = netlink.attributes(netlink.attributes(answer, _TCMSG.size).get(_TCA_OPTIONS, b""))
            name = options.get(_TCA_BPF_NAME, b"").rstrip(b"\0").decode(errors="replace")
            if handle and info >> 16 == _PRIORITY and name.startswith("capture_"):
                yield handle
