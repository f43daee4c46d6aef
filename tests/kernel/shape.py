"""How a link cuts, merges and limits packets, with the far end always seeing those of the wire."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from tests.kernel.capture import entered
from tests.kernel.machine import Link

MTU = 1500
_LARGEST = 1 << 16  # bytes of a super-packet, unless more is asked for

# linux/rtnetlink.h, linux/netlink.h, linux/if_link.h
_NEW_LINK, _REQUEST, _ACKNOWLEDGE = 16, 1, 4
_GSO_IPV4_MAX_SIZE, _GRO_IPV4_MAX_SIZE = 63, 64


@contextmanager
def shape(link: Link, *, offload: bool, mtu: int = MTU, largest: int = _LARGEST) -> Iterator[None]:
    """For the block: segmentation as late as it can be, by the near end's stack in front of the device. With
    `offload` this is asked for, and what the near end receives is merged. At the far end nothing is."""
    try:
        _set(link, offload=offload, mtu=mtu, largest=largest)
        yield
    finally:
        _set(link, offload=False, mtu=MTU, largest=_LARGEST)


def _set(link: Link, *, offload: bool, mtu: int, largest: int) -> None:
    for space, device, wanted in (
        (link.near, link.near_device, offload),
        (link.far, link.far_device, False),
    ):
        state = "on" if wanted else "off"
        features = f"tso off tx-udp-segmentation off gso {state} gro {state}"
        space.run("ethtool", "-K", device, *features.split())
        space.ip(f"link set {device} mtu {mtu} gso_max_size {largest} gro_max_size {largest}")
        with entered(space):
            _set_ipv4_sizes(space.index(device), largest)


def _set_ipv4_sizes(index: int, size: int) -> None:
    """gso_ipv4_max_size and gro_ipv4_max_size of a device (rtnetlink(7)), which not every ip(8) knows.

    Kernels before 6.3 know neither and let them pass.
    """
    body = struct.pack("=BxHiII", 0, 0, index, 0, 0)
    for attribute in (_GSO_IPV4_MAX_SIZE, _GRO_IPV4_MAX_SIZE):
        body += struct.pack("=HHI", 8, attribute, size)
    request = struct.pack("=IHHII", 16 + len(body), _NEW_LINK, _REQUEST | _ACKNOWLEDGE, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as connection:
        connection.send(request)
        (error,) = struct.unpack_from("=i", connection.recv(4096), 16)
        assert error == 0


@contextmanager
def narrow_route(link: Link, family: int, mtu: int) -> Iterator[None]:
    """For the block: a route from the near end to the far one that takes smaller packets than the device."""
    route = f"{link.address(family, far=True)} dev {link.near_device} mtu {mtu}"
    link.near.ip(f"route add {route}")
    try:
        yield
    finally:
        link.near.ip(f"route del {route}")
