"""A tun device whose other end is the test: a layer-3 interface, with or without segmentation offload."""

from __future__ import annotations

import fcntl
import os
import select
import struct
from types import TracebackType

from tests.kernel.capture import entered
from tests.kernel.deadline import DEADLINE
from tests.kernel.machine import Namespace

# include/uapi/linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
# include/uapi/linux/virtio_net.h: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
_VNET_HEADER = struct.Struct("=BBHHHH")
_NEEDS_CHECKSUM, _GSO_TCPV4 = 1, 1


class Tun:
    """Opens the device; closing it removes the interface."""

    def __init__(self, space: Namespace, name: str, *, offload: bool = False) -> None:
        flags = _IFF_TUN | _IFF_NO_PI | (_IFF_VNET_HDR if offload else 0)
        with entered(space):
            self._descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(self._descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))

    def receive(self) -> bytes:
        """The next IP packet that leaves through the device."""
        ready, _, _ = select.select([self._descriptor], [], [], DEADLINE)
        assert ready, "no packet came"
        return os.read(self._descriptor, 1 << 16)

    def send(self, packet: bytes) -> None:
        """Lets a packet come in."""
        os.write(self._descriptor, packet)

    def send_segments(self, packet: bytes, *, headers: int, size: int) -> None:
        """Lets a TCP/IPv4 super-packet come in that stands for segments of `size` bytes."""
        header = _VNET_HEADER.pack(_NEEDS_CHECKSUM, _GSO_TCPV4, headers, size, 20, 16)
        os.write(self._descriptor, header + packet)

    def __enter__(self) -> Tun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


def reflected(packet: bytes) -> bytes:
    """The same IPv4 packet with UDP or TCP on its way back; its checksums stay right."""
    return packet[:12] + packet[16:20] + packet[12:16] + packet[22:24] + packet[20:22] + packet[24:]
