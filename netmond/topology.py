"""How interfaces stand on each other, and what that makes of them for the programs. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from netmond.kernel import wire
from netmond.kernel.devices import Device
from netmond.kernel.role import Role

_BRIDGE = "bridge"
_BONDS = ("bond", "team")
_VLAN = "vlan"
_ON_ANOTHER = (_VLAN, "macvlan", "macvtap", "ipvlan", "ipvtap")
_VETH = "veth"


def lower(devices: Mapping[int, Device]) -> dict[int, set[int]]:
    """The interfaces on which others stand: index -> indexes of those directly below."""
    below: dict[int, set[int]] = {}
    for index, device in devices.items():
        if device.info.kind in _ON_ANOTHER and device.link in devices:
            below.setdefault(index, set()).add(device.link)
        master = devices.get(device.master)
        if master and master.info.kind in (_BRIDGE, *_BONDS):
            below.setdefault(device.master, set()).add(index)
    return below


def roles(devices: Mapping[int, Device], monitored: Collection[int]) -> dict[int, Role]:
    """The roles of all monitored interfaces, and of others that their programs need to know.

    Of interfaces on top of each other the lowest counts a packet for the machine, if all of the lower ones
    are monitored; else the upper one does.
    """
    below = lower(devices)

    def covered(index: int) -> bool:
        return index in below and all(one in monitored or covered(one) for one in below[index])

    found: dict[int, Role] = {}
    for index, device in devices.items():
        above = [upper for upper, lowers in below.items() if index in lowers]
        role = _role(device, devices, monitored)
        flags = role.flags
        if covered(index):
            flags |= wire.PORT_UPPER
        if any(upper in monitored and not covered(upper) for upper in above):
            flags |= wire.PORT_SHARED
        if any(devices[upper].info.kind == _VLAN for upper in above):
            flags |= wire.PORT_TRUNK
        near = flags & wire.PORT_BRIDGED and not below[device.master].isdisjoint(monitored)
        if index in monitored or flags & wire.PORT_UPPER or near:
            found[index] = replace(role, flags=flags)
    return found


def _role(device: Device, devices: Mapping[int, Device], monitored: Collection[int]) -> Role:
    """What an interface is by itself and to its master."""
    role = Role(link_header=device.link_header, loopback=device.loopback)
    flags = wire.PORT_ECHO if device.info.kind == _VETH and device.link in monitored else 0
    master = devices.get(device.master)
    if master and master.info.kind == _BRIDGE:
        flags |= wire.PORT_BRIDGED
        return replace(role, flags=flags, master=device.master, address=master.address)
    if master and master.info.kind in _BONDS:
        return replace(role, flags=flags | wire.PORT_SLAVE, master=device.master)
    return replace(role, flags=flags)
