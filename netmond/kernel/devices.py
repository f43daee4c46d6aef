"""The network interfaces of this machine: what they are, and the kernel's own counters."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

from netmond.kernel import netlink
from netmond.model import InterfaceInfo

# include/uapi/linux/if_link.h
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINK, _IFLA_MASTER, _IFLA_OPERSTATE = 1, 3, 5, 10, 16
_IFLA_LINKINFO, _IFLA_STATS64, _IFLA_LINK_NETNSID = 18, 23, 37
_IFLA_INFO_KIND = 1
_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_STATS64 = struct.Struct("=8Q")  # the first of struct rtnl_link_stats64
_STATS64_NAMES = (
    "rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped",
)  # fmt: skip
_NUMBER = struct.Struct("=I")
_MAC = 6
_IFF_LOOPBACK = 0x8
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_OPERSTATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")
_ETHERNET_HEADER = 14

# include/uapi/linux/rtnetlink.h
_ROUTE = struct.Struct("=8BI")  # struct rtmsg: family, destination's length, ..., table, ..., type, flags
_RTA_OIF, _RTA_MULTIPATH = 4, 9
_RT_TABLE_MAIN, _RTN_UNICAST = 254, 1
_INDEX = struct.Struct("=i")
_NEXT_HOP = struct.Struct("=HHi")  # struct rtnexthop: length, flags and hops, interface


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """An interface and what monitoring it needs to know."""

    info: InterfaceInfo
    link_header: int  #: bytes, 0: none
    loopback: bool
    address: bytes = bytes(_MAC)  #: of Ethernet
    master: int = 0  #: index of the bridge, bond, ... that it belongs to, 0: none
    link: int = 0  #: index of the interface it stands on (VLAN), or is connected to (veth), if that is here


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
    address = found.get(_IFLA_ADDRESS, b"")
    state = found.get(_IFLA_OPERSTATE, b"\0")[0]
    return Device(
        info=InterfaceInfo(
            name=name,
            index=index,
            kind=_kind(name, flags, found),
            state=_OPERSTATES[state] if state < len(_OPERSTATES) else "unknown",
            kernel=dict(zip(_STATS64_NAMES, _STATS64.unpack_from(found[_IFLA_STATS64]), strict=True)),
        ),
        link_header=_ETHERNET_HEADER if arp_type in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK) else 0,
        loopback=bool(flags & _IFF_LOOPBACK),
        address=address if len(address) == _MAC else bytes(_MAC),
        master=_number(found.get(_IFLA_MASTER)),
        link=0 if _IFLA_LINK_NETNSID in found else _number(found.get(_IFLA_LINK)),
    )


def _number(value: bytes | None) -> int:
    return int(_NUMBER.unpack(value)[0]) if value else 0


def _kind(name: str, flags: int, found: dict[int, bytes]) -> str:
    if flags & _IFF_LOOPBACK:
        return "loopback"
    link = netlink.attributes(found.get(_IFLA_LINKINFO, b""))
    if _IFLA_INFO_KIND in link:
        return link[_IFLA_INFO_KIND].rstrip(b"\0").decode(errors="replace")
    if os.path.exists(f"/sys/class/net/{name}/device"):
        return "physical"
    return "virtual"


def default_route_devices() -> set[int]:
    """Indexes of the interfaces that carry a default route of the main table, IPv4 or IPv6."""
    found = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        for answer in netlink.dump(netlink.ROUTE, netlink.RTM_GETROUTE, _ROUTE.pack(family, *bytes(7), 0)):
            _, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(answer)
            if length == 0 and table == _RT_TABLE_MAIN and kind == _RTN_UNICAST:
                found |= _route_devices(netlink.attributes(answer, _ROUTE.size))
    return found


def _route_devices(route: dict[int, bytes]) -> set[int]:
    """Where a route leads: one interface, or several if it is split between them."""
    if _RTA_OIF in route:
        return {_INDEX.unpack(route[_RTA_OIF])[0]}
    hops, found, at = route.get(_RTA_MULTIPATH, b""), set(), 0
    while at + _NEXT_HOP.size <= len(hops):
        length, _, index = _NEXT_HOP.unpack_from(hops, at)
        found.add(index)
        at += max((length + 3) & ~3, _NEXT_HOP.size)
    return found


def choose(wanted: list[str] | tuple[str, ...], present: dict[int, Device]) -> set[str]:
    """Names to monitor: those listed; ``auto``: all physical ones and those with a default route."""
    names = {name for name in wanted if name != "auto"}
    if "auto" in wanted:
        names |= {device.info.name for device in present.values() if device.info.kind == "physical"}
        names |= {present[index].info.name for index in default_route_devices() & present.keys()}
    return names & {device.info.name for device in present.values()}
