"""Queueing disciplines as rtnetlink tells of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netmond.kernel import netlink, queues


def answer(ifindex: int, parent: bytes) -> bytes:
    """A qdisc that holds 3 packets of 1009 bytes, and has dropped 23."""
    return (
        b"\x00\x00\x00\x00"  # tcm_family, padding
        + bytes([ifindex, 0, 0, 0])  # tcm_ifindex
        + b"\x00\x00\x01\x80"  # tcm_handle
        + parent  # tcm_parent
        + b"\x02\x00\x00\x00"  # tcm_info
        b"\x08\x00\x01\x00tbf\x00"  # TCA_KIND
        b"\x1c\x00\x07\x00"  # TCA_STATS2
        b"\x18\x00\x03\x00"  # TCA_STATS_QUEUE
        b"\x03\x00\x00\x00"  # qlen: 3
        b"\xf1\x03\x00\x00"  # backlog: 1009
        b"\x17\x00\x00\x00"  # drops: 23
        b"\x00\x00\x00\x00"  # requeues
        b"\x00\x00\x00\x00"  # overlimits
    )


def test_recorded_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each interface the root: what is below it is in its figures, and ingress holds nothing."""
    answers = [
        answer(2, b"\xff\xff\xff\xff"),
        answer(2, b"\x01\x00\x01\x80"),
        answer(3, b"\xf1\xff\xff\xff"),
    ]

    def dump(family: int, kind: int, body: bytes) -> Iterator[bytes]:
        assert (family, kind, len(body)) == (netlink.ROUTE, netlink.RTM_GETQDISC, 20)
        return iter(answers)

    monkeypatch.setattr(netlink, "dump", dump)

    assert queues.queues() == {2: queues.Queue(drops=23, packets=3, bytes=1009)}
