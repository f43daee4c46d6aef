"""Compiles the program of a path session, attaches it to the stages, and reads its tables.

load() is the way in; Path is what a session works with.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.errors import KernelError
from netmond.kernel import wire
from netmond.kernel.btf import Btf
from netmond.kernel.compile import Compilation, Loaded
from netmond.kernel.programs import possible_cpus
from netmond.kernel.ring import Ring
from netmond.kernel.tables import CpuArray, HashTable
from netmond.kernel.unit import Offsets, Program, Unit
from netmond.kernel.variants import place_maps
from netmond.path.filters import Options, filter_source, wanted_hooks, why_not
from netmond.path.hooks import Hooks, Resolution
from netmond.path.stages import STAGES

__all__ = ["Options", "Path", "load"]

_PASSAGES = 16384  # packets under way whose stages are timed: a table size
_DROPS = 4096  # reasons times places in the code
_BURST = 0.1  # seconds of the rate that may come at once

#: What path.c reads from the kernel's structures: macro, structure, member.
_MEMBERS = (
    ("SKB_PROTOCOL", "sk_buff", "protocol"),
    ("SKB_NETWORK", "sk_buff", "network_header"),
    ("SKB_MAC", "sk_buff", "mac_header"),
    ("SKB_HEAD", "sk_buff", "head"),
    ("SKB_DATA", "sk_buff", "data"),
    ("SKB_LEN", "sk_buff", "len"),
    ("SKB_SK", "sk_buff", "sk"),
    ("SKB_DEV", "sk_buff", "dev"),
    ("SKB_CB", "sk_buff", "cb"),
    ("SKB_ARRIVED", "sk_buff", "skb_iif"),
    ("DEV_INDEX", "net_device", "ifindex"),
    ("DEV_NAME", "net_device", "name"),
    ("SOCK_FAMILY", "sock_common", "skc_family"),
    ("SOCK_STATE", "sock_common", "skc_state"),
    ("SOCK_COOKIE", "sock_common", "skc_cookie"),
    ("SOCK_LOCAL4", "sock_common", "skc_rcv_saddr"),
    ("SOCK_REMOTE4", "sock_common", "skc_daddr"),
    ("SOCK_LOCAL6", "sock_common", "skc_v6_rcv_saddr"),
    ("SOCK_REMOTE6", "sock_common", "skc_v6_daddr"),
    ("SOCK_LOCAL_PORT", "sock_common", "skc_num"),
    ("SOCK_REMOTE_PORT", "sock_common", "skc_dport"),
    ("SOCK_PROTOCOL", "sock", "sk_protocol"),
    ("SOCK_UID", "sock", "sk_uid"),
)

#: What it can do without
_TCP_MEMBERS: Offsets = (
    (
        "calls and retransmits have no sequence numbers",
        (
            ("TCP_SEQUENCE_OFFSET", "tcp_skb_cb", "seq"),
            ("TCP_FLAGS_OFFSET", "tcp_skb_cb", "tcp_flags"),
            ("TCP_WRITTEN_OFFSET", "tcp_sock", "write_seq"),
        ),
    ),
)


def unit_of(options: Options, btf: Btf) -> Unit:
    """What is compiled for these options."""
    interval = round(1e9 / options.rate) if options.rate else 0
    return Unit(
        source="path.c",
        preamble=filter_source(options),
        defines={
            **{f"{macro}_OFFSET": btf.offset(structure, member) for macro, structure, member in _MEMBERS},
            "CPUS": possible_cpus(),
            "RING_BYTES": options.buffer,
            "INTERVAL": interval,
            "BURST": round(_BURST * 1e9),
            "PASSAGES": _PASSAGES if options.stats else 1,
            "DROPS": _DROPS if options.stats else 1,
            **({"STATISTICS": 1} if options.stats else {}),
        },
        programs=(
            Program(name="bpf_iter__bpf_map_elem", kind="TRACING", loss="functions that drop have no names"),
        ),
        maps=(
            "events",
            "due",
            "counters",
            "handled",
            "passages",
            "drops",
            "latencies",
            "locations",
            "shared",
        ),
        code=("path",),
        offsets=_TCP_MEMBERS,
    )


class EventRing(Ring):
    """The ring of path.c."""

    record = wire.PATH_EVENT


class Path:
    """A path session's programs and tables; arrays have a row for each of `stages`."""

    def __init__(self, loaded: Loaded, stages: Iterable[Resolution], hooks: Hooks) -> None:
        self._loaded = loaded
        self._hooks = hooks
        self.stages = tuple(stages)
        self.notes = loaded.notes  #: what has to be done without, and why
        self.maps = loaded.maps
        self.symbols = loaded.programs.get("bpf_iter__bpf_map_elem")  #: the iterator of bpf/symbols.h
        self.descriptor = loaded.maps["events"]  #: to poll
        self.ring = EventRing.open(self.descriptor)
        cpus = possible_cpus()
        self._counters = CpuArray(loaded.maps["counters"], wire.PATH_COUNTERS, cpus, wire.PATH_STAGES)
        self._latencies = CpuArray(loaded.maps["latencies"], wire.PATH_LATENCY, cpus, wire.PATH_STAGES)
        self._drops = HashTable(loaded.maps["drops"], wire.PATH_DROP_KEY, np.dtype("u8"), _DROPS)

    def counters(self) -> NDArray[Any]:
        """wire.PATH_COUNTERS of each stage, over all CPUs."""
        sums = self._counters.sums(wire.PATH_STAGES)
        return sums.view(wire.PATH_COUNTERS).reshape(-1)[: len(self.stages)]

    def latencies(self) -> NDArray[np.uint64]:
        """Of each stage, packets by the power of two of their ns since the stage before (statistics)."""
        return self._latencies.sums(wire.PATH_STAGES)[: len(self.stages)]

    def drops(self) -> tuple[NDArray[Any], NDArray[np.uint64]]:
        """Places and reasons of drops (wire.PATH_DROP_KEY), and how often each (statistics)."""
        return self._drops.read()

    def detach(self) -> None:
        """Nothing is seen any more; what was stays to be read."""
        self._hooks.close()

    def close(self) -> None:
        self.detach()
        self._loaded.close()


def load(options: Options) -> Path:
    """Compiles (a second or so) and attaches. KernelError: nothing could be compiled, or no stage seen."""
    with Btf() as btf, ExitStack() as stack:
        unit = unit_of(options, btf)
        loaded = Compilation(unit).result()
        stack.callback(loaded.close)
        places = {number: loaded.maps[name] for number, name in enumerate(unit.maps)}
        hooks = Hooks(place_maps(loaded.code["path"], places), btf, loaded.maps["shared"])
        stack.callback(hooks.close)
        found: list[Resolution] = []
        # The last stage first: of several programs at a function the one that came last runs first.
        for number, stage in reversed(tuple(enumerate(STAGES))):
            excuse = why_not(stage, options)
            found.insert(
                0,
                Resolution(stage=stage, reason=excuse)
                if excuse
                else hooks.resolve(number, stage, wanted_hooks(stage, options)),
            )
        if not any(each.hook for each in found):
            refused = [text for each in found for text in each.tried]
            raise KernelError(f"no stage can be seen: {refused[0] if refused else found[0].reason}")
        path = Path(loaded, found, hooks)
        stack.pop_all()
    return path
