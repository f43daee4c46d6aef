"""How interfaces stand on each other, and which of them counts a packet for the machine."""

from __future__ import annotations

from typing import Any

import pytest

from netmond.kernel import wire
from netmond.kernel.devices import Device
from netmond.model import InterfaceInfo
from netmond.topology import lower, roles

ECHO, UPPER, SHARED = wire.PORT_ECHO, wire.PORT_UPPER, wire.PORT_SHARED
SLAVE, BRIDGED, TRUNK = wire.PORT_SLAVE, wire.PORT_BRIDGED, wire.PORT_TRUNK
MAC = bytes([2, 0, 0, 0, 0, 7])


def device(index: int, kind: str = "physical", **more: Any) -> Device:
    info = InterfaceInfo(name=f"{kind}{index}", index=index, kind=kind, state="up")
    return Device(info=info, link_header=14, loopback=kind == "loopback", **more)


def machine(*devices: Device) -> dict[int, Device]:
    return {one.info.index: one for one in devices}


def flags(devices: dict[int, Device], *monitored: int) -> dict[int, int]:
    return {index: role.flags for index, role in roles(devices, monitored).items()}


VLAN = machine(device(1), device(2, "vlan", link=1))
BOND = machine(device(1, master=3), device(2, master=3), device(3, "bond"))
BRIDGE = machine(device(1, master=3), device(2, "veth", master=3), device(3, "bridge", address=MAC))


def test_what_stands_on_what() -> None:
    """VLANs on their link, bridges and bonds on those they are the master of; a veth's link is its other
    end, and a VRF's members do not hand their packets up."""
    assert lower(VLAN) == {2: {1}}
    assert lower(BOND) == lower(BRIDGE) == {3: {1, 2}}
    assert lower(machine(device(1, "veth", link=2), device(2, "veth", link=1))) == {}
    assert lower(machine(device(1, master=2), device(2, "vrf"))) == {}
    assert lower(machine(device(1, "vlan", link=9, master=8))) == {}


@pytest.mark.parametrize(
    ("devices", "monitored", "expected"),
    [
        (VLAN, (1, 2), {1: TRUNK, 2: UPPER}),
        (VLAN, (2,), {2: 0}),
        (VLAN, (1,), {1: TRUNK, 2: UPPER}),  # so that what came in there is known to be counted
        (BOND, (1, 2, 3), {1: SLAVE, 2: SLAVE, 3: UPPER}),
        (BOND, (1, 3), {1: SLAVE | SHARED, 3: 0}),
        (BOND, (3,), {3: 0}),
        (BRIDGE, (1, 2, 3), {1: BRIDGED, 2: BRIDGED, 3: UPPER}),
        (BRIDGE, (1, 3), {1: BRIDGED | SHARED, 2: BRIDGED | SHARED, 3: 0}),
        (BRIDGE, (1,), {1: BRIDGED, 2: BRIDGED}),
        (BRIDGE, (3,), {3: 0}),
    ],
)
def test_roles(devices: dict[int, Device], monitored: tuple[int, ...], expected: dict[int, int]) -> None:
    """The lowest interface counts if all of the lower ones are monitored, else the upper one."""
    assert flags(devices, *monitored) == expected


def test_a_stack_of_three() -> None:
    """A VLAN on a bond of two: only the slaves count."""
    devices = BOND | machine(device(4, "vlan", link=3))

    assert flags(devices, 1, 2, 3, 4) == {1: SLAVE, 2: SLAVE, 3: UPPER | TRUNK, 4: UPPER}
    assert flags(devices, 1, 2, 4) == {1: SLAVE, 2: SLAVE, 3: UPPER | TRUNK, 4: UPPER}
    assert flags(devices, 3, 4) == {3: TRUNK, 4: UPPER}


def test_what_a_bridge_port_needs_to_know() -> None:
    """The bridge, and the address of frames that are for itself."""
    role = roles(BRIDGE, (1,))[1]

    assert (role.master, role.address, role.link_header) == (3, MAC, 14)


def test_both_ends_of_a_cable() -> None:
    """What one end receives the other has counted, if it is monitored; lo is its own other end."""
    cable = machine(device(1, "veth", link=2), device(2, "veth", link=1))

    assert flags(cable, 1, 2) == {1: ECHO, 2: ECHO}
    assert flags(cable, 1) == {1: 0}
    assert roles(machine(device(1, "loopback")), (1,))[1].loopback
