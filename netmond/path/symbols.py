"""Names of the kernel's functions by an address inside, for a process that may not read /proc/kallsyms.

The daemon's sandbox hides that file (ProcSubset=pid), and kptr_restrict its addresses. A BPF iterator with
"%pB" in bpf_seq_printf() tells the same to whoever may load it (bpf/symbols.h, Linux 5.9).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from netmond.kernel import libbpf


class Symbols:
    """Looks each address up once: there are no more than calls in the kernel's code."""

    def __init__(self, program: int | None, locations: int) -> None:
        """program, locations: descriptors of the iterator and of the array it walks; None: not loaded, all
        that is known of a function is its address."""
        self._program = program
        self._locations = locations
        self._names: dict[int, str] = {}

    def name(self, address: int) -> str:
        """``tcp_v4_rcv+0x1f``, with the name of its module behind it if it has one; empty for 0."""
        if not address:
            return ""
        if address not in self._names:
            self.learn([address])
        return self._names[address]

    def learn(self, addresses: Iterable[int]) -> None:
        """Looks up in one go what is not known yet. KernelError: the iterator cannot be run."""
        unknown = sorted({address for address in addresses if address} - self._names.keys())
        if self._program is None:
            self._names.update({address: f"{address:#x}" for address in unknown})
            return
        room = libbpf.map_capacity(self._locations)
        for first in range(0, len(unknown), room):
            some = unknown[first : first + room]
            for place in range(room):
                address = some[place] if place < len(some) else 0
                libbpf.map_update(
                    self._locations, np.array([place], np.uint32), np.array([address], np.uint64)
                )
            lines = libbpf.iterate(self._program, self._locations).decode().splitlines()
            self._names.update(zip(some, map(_without_size, lines), strict=True))


def _without_size(symbol: str) -> str:
    """``tcp_v4_rcv+0x1f`` of ``tcp_v4_rcv+0x1f/0x13f0``, what stands behind it is kept."""
    name, _, rest = symbol.partition("/")
    _, space, module = rest.partition(" ")
    return f"{name}{space}{module}"
