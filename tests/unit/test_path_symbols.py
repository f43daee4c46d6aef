"""Names of functions: looked up in one go, once, and without what nobody asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from netmond.kernel import libbpf
from netmond.path.symbols import Symbols

PROGRAM, MAP, ROOM = 5, 6, 4


class Kernel:
    """An array of addresses, and an iterator that names those that are not 0."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._places = np.zeros(ROOM, np.uint64)
        self.runs = 0

    def update(self, map_: int, key: NDArray[np.uint32], value: NDArray[np.uint64]) -> None:
        assert map_ == MAP
        self._places[key] = value

    def iterate(self, program: int, map_: int) -> bytes:
        assert (program, map_) == (PROGRAM, MAP)
        self.runs += 1
        return "".join(f"{self._names[address]}\n" for address in self._places.tolist() if address).encode()


def _symbols(monkeypatch: pytest.MonkeyPatch, kernel: Kernel) -> Symbols:
    monkeypatch.setattr(libbpf, "map_capacity", lambda map_: ROOM)
    monkeypatch.setattr(libbpf, "map_update", kernel.update)
    monkeypatch.setattr(libbpf, "iterate", kernel.iterate)
    return Symbols(PROGRAM, MAP)


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of the function is left out, its module stays; what has no name is an address."""
    lines = ["", "tcp_v4_rcv+0x1f/0x13f0", "nft_do_chain+0x3e8/0x5f0 [nf_tables]", "0xffffffffc0000003"]
    symbols = _symbols(monkeypatch, Kernel(lines))

    assert [symbols.name(address) for address in range(4)] == [
        "",
        "tcp_v4_rcv+0x1f",
        "nft_do_chain+0x3e8 [nf_tables]",
        "0xffffffffc0000003",
    ]


def test_as_many_at_a_time_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learnt is not looked up again; what an earlier run left is not either."""
    kernel = Kernel([f"f{address}+0x1/0x2" for address in range(23)])
    symbols = _symbols(monkeypatch, kernel)
    symbols.learn([*range(1, 10), 3, 0])
    symbols.learn(range(1, 12))

    assert kernel.runs == 3 + 1
    assert [symbols.name(address) for address in range(1, 12)] == [f"f{place}+0x1" for place in range(1, 12)]
    assert kernel.runs == 4


def test_without_the_iterator() -> None:
    assert Symbols(None, MAP).name(0xFFFFFFFF81000010) == "0xffffffff81000010"
