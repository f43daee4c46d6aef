"""The bitmaps that tell the interface programs quickly that an address is no target."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.model import Network

_GOLDEN_RATIO = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1
_ALL = np.uint64(_WORD)


def place(network: Network) -> int | None:
    """The bit of a target, as may_be_target() in bpf/targets.h has it; None: too wide for one bit."""
    if network.version == 4:
        wide, key = network.prefixlen < 24, int(network.network_address) >> 8
    else:
        wide, key = network.prefixlen < 64, int.from_bytes(network.network_address.packed[:8], sys.byteorder)
    return None if wide else (key * _GOLDEN_RATIO & _WORD) >> (64 - wire.FILTER_BITS)


class Prefilter:
    """One family's bitmap. May say yes too often, never no too soon: add first, then fill the trie."""

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self._words = words
        self._targets: Counter[int | None] = Counter()

    def add(self, network: Network) -> None:
        bit = place(network)
        self._targets[bit] += 1
        if bit is None:
            self._words[:] = _ALL
        else:
            self._words[bit // 64] |= np.uint64(1 << bit % 64)

    def remove(self, network: Network) -> None:
        bit = place(network)
        self._targets[bit] -= 1
        if self._targets[bit]:
            return
        del self._targets[bit]
        if bit is None:
            words = np.zeros_like(self._words)
            for other in self._targets:
                if other is not None:
                    words[other // 64] |= np.uint64(1 << other % 64)
            self._words[:] = words
        elif None not in self._targets:
            self._words[bit // 64] &= ~np.uint64(1 << bit % 64)
