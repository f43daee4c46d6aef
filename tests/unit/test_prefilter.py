"""The bitmaps in front of the target tries."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from netmond.kernel import wire
from netmond.kernel.prefilter import Prefilter, place
from netmond.model import Network

WORDS = (1 << wire.FILTER_BITS) // 64


def says_yes(words: np.ndarray[tuple[int], np.dtype[np.uint64]], network: Network) -> bool:
    """What may_be_target() of bpf/targets.h finds for an address."""
    bit = place(network)
    assert bit is not None
    return bool(int(words[bit // 64]) >> bit % 64 & 1)


def networks() -> st.SearchStrategy[Network]:
    return st.builds(
        lambda address, length: IPv4Network((address, length), strict=False),
        st.integers(0, 2**32 - 1),
        st.integers(0, 32),
    )


def test_places() -> None:
    """Addresses of one /24 or /64 share a bit; a wider prefix has none."""
    assert place(ip_network("192.0.2.7")) == place(ip_network("192.0.2.0/24")) is not None
    assert place(ip_network("192.0.2.7")) != place(ip_network("192.0.3.7"))
    assert place(ip_network("192.0.2.0/23")) is None
    assert place(ip_network("2001:db8::7")) == place(ip_network("2001:db8::/64")) is not None
    assert place(IPv6Network("2001:db8::/63")) is None


def test_a_wide_prefix_opens_everything() -> None:
    """While one is there every address is looked up; without it only the others' places are left."""
    words = np.zeros(WORDS, np.uint64)
    narrow, wide, far = (ip_network(text) for text in ("192.0.2.7", "10.0.0.0/8", "203.0.113.9"))
    prefilter = Prefilter(words)
    prefilter.add(narrow)
    prefilter.add(wide)

    assert says_yes(words, far)

    prefilter.remove(wide)

    assert says_yes(words, narrow)
    assert not says_yes(words, far)


@given(st.lists(networks(), unique=True), st.data())
def test_never_no_too_soon(targets: list[Network], data: st.DataObject) -> None:
    """Whatever came and went: every address of every target passes; with none left, nothing does."""
    words = np.zeros(WORDS, np.uint64)
    prefilter = Prefilter(words)
    for target in targets:
        prefilter.add(target)
    gone = data.draw(st.lists(st.sampled_from(targets), unique=True)) if targets else []
    for target in gone:
        prefilter.remove(target)

    for target in set(targets) - set(gone):
        assert says_yes(words, ip_network(target.network_address))
        assert says_yes(words, ip_network(target.broadcast_address))
    if len(gone) == len(targets):
        assert not words.any()
