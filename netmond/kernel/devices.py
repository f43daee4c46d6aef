"""The network interfaces of this machine: what they are, and the kernel's own counters."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from netmond.kernel import netlink
from netmond.model import InterfaceInfo

# include/uapi/linux/if_link.h
_IFLA_IFNAME, _IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_STATS64 = 3, 16, 18, 23
_IFLA_INFO_KIND = 1
_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_STATS64 = struct.Struct("=4Q")  # the first of struct rtnl_link_stats64: packets and bytes
_IFF_LOOPBACK = 0x8
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_OPERSTATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")
_ETHERNET_HEADER = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """An interface and what monitoring it needs to know: its link-layer header in bytes, 0 for none."""

    info: InterfaceInfo
    link_header: int
    loopback: bool


def devices() -> dict[int, Device]:
    """All interfaces of this network namespace by index, with their counters at this moment."""
    request = _IFINFOMSG.pack(0, 0, 0, 0, 0)
    return {
        device.info.index: device
        for device in (
            _device(answer) for answer in netlink.dump(netlink.ROUTE, netlink.RTM_GETLINK, request)
        )
    }


def _device(answer: bytes) -> Device:
    _, arp_type, index, flags, _ = _IFINFOMSG.unpack_from(answer)
    found = netlink.attributes(answer, _IFINFOMSG.size)
    name = found[_IFLA_IFNAME].rstrip(b"\0").decode(errors="replace")
    rx_packets, tx_packets, rx_bytes, tx_bytes = _STATS64.unpack_from(found[_IFLA_STATS64])
    state = found.get(_IFLA_OPERSTATE, b"\0")[0]
    return Device(
        info=InterfaceInfo(
            name=name,
            index=index,
            kind=_kind(name, flags, found),
            state=_OPERSTATES[state] if state < len(_OPERSTATES) else "unknown",
            kernel={
                "rx_packets": rx_packets,
                "rx_bytes": rx_bytes,
                "tx_packets": tx_packets,
                "tx_bytes": tx_bytes,
            },
        ),
        link_header=_ETHERNET_HEADER if arp_type in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK) else 0,
        loopback=bool(flags & _IFF_LOOPBACK),
    )


def _kind(name: str, flags: int, found: dict[int, bytes]) -> str:
    if flags & _IFF_LOOPBACK:
        return "loopback"
    link = netlink.attributes(found.get(_IFLA_LINKINFO, b""))
    if _IFLA_INFO_KIND in link:
        return link[_IFLA_INFO_KIND].rstrip(b"\0").decode(errors="replace")
    if Path("/sys/class/net", name, "device").exists():
        return "physical"
    return "virtual"


def default_route_devices() -> set[str]:
    """Names of the interfaces that carry a default route, IPv4 or IPv6 (/proc/net/route, ipv6_route)."""
    names = set()
    try:
        for line in Path("/proc/net/route").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1] == "00000000" and fields[7] == "00000000":
                names.add(fields[0])
    except OSError:
        pass
    try:
        for line in Path("/proc/net/ipv6_route").read_text().splitlines():
            fields = line.split()
            if fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo":
                names.add(fields[9])
    except OSError:
        pass
    return names


def choose(wanted: list[str] | tuple[str, ...], present: dict[int, Device]) -> set[str]:
    """Names to monitor: those listed; ``auto``: all physical ones and those with a default route."""
    names = {name for name in wanted if name != "auto"}
    if "auto" in wanted:
        names |= {device.info.name for device in present.values() if device.info.kind == "physical"}
        names |= default_route_devices()
    return names & {device.info.name for device in present.values()}
