"""Walks and reads /sys/class/infiniband (Documentation/ABI/stable/sysfs-class-infiniband).

The files stay open, as far as descriptors go: a reading then costs one pread(2) a counter. Those of a device
that was taken away say ENODEV, also if another one of its name has come since. What cannot be read, or is no
number ("N/A (no PMA)"), is absent: that is not 0.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from netmond.model import Gid, RdmaPort
from netmond.rdma.catalogue import Name, is_counter

_GROUPS = ("counters", "hw_counters")
_LARGEST = (1 << 64) - 1
_LINE = 128  # bytes of a file that are read: the longest are firmware versions and names
_DESCRIBED = 30.0  # seconds after which a device is opened anew
#: GID tables have up to 1,024 places, filled from the front: so many empty ones are taken for the end.
_EMPTY_GIDS = 16
_NO_GID = "0000:0000:0000:0000:0000:0000:0000:0000"


class Reading(NamedTuple):
    """One port at one moment: what is known of it, and its counters that could be read."""

    port: RdmaPort  #: without counters
    life: int  #: of the device: another number for another one of the same name
    names: tuple[Name, ...]
    values: list[int]  #: 0 to 2^64 - 1


class Descriptors:
    """How many files may still be kept open."""

    def __init__(self, limit: int) -> None:
        self.left = limit


class _File:
    """A file that is read again and again."""

    __slots__ = ("_descriptor", "_descriptors", "_path")

    def __init__(self, path: str, descriptors: Descriptors) -> None:
        self._path = path
        self._descriptors = descriptors
        self._descriptor = -1

    def read(self) -> bytes:
        """What it says now. OSError: the driver refuses, or the device is gone."""
        if self._descriptor >= 0:
            return os.pread(self._descriptor, _LINE, 0)
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        if self._descriptors.left > 0:
            self._descriptors.left -= 1
            self._descriptor = descriptor
            return os.pread(descriptor, _LINE, 0)
        try:
            return os.pread(descriptor, _LINE, 0)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptors.left += 1
            self._descriptor = -1


class Devices:
    """All devices. Each is opened when it comes, and anew now and then: GIDs and speed may change."""

    def __init__(self, root: str, descriptors: Descriptors) -> None:
        """root: /sys/class/infiniband, or a directory like it."""
        self._root = root
        self._descriptors = descriptors
        self._devices: dict[str, _Device] = {}

    def read(self, now: float) -> Iterator[Reading]:
        """Reads one port after the other, whatever happens to them meanwhile. now: monotonic seconds."""
        present = _list(self._root)
        for name in self._devices.keys() - set(present):
            self._devices.pop(name).close()
        for name in sorted(present):
            try:
                yield from self._device(name, now).read()
            except OSError:  # it went meanwhile; if another one took its place, that has its turn next time
                if name in self._devices:
                    self._devices.pop(name).close()

    def close(self) -> None:
        for device in self._devices.values():
            device.close()
        self._devices.clear()

    def _device(self, name: str, now: float) -> _Device:
        path = f"{self._root}/{name}"
        known = self._devices.get(name)
        life = os.stat(path).st_ino  # kernfs gives each directory one of its own
        if known is None or known.life != life or now >= known.until or known.changed:
            if known is not None:
                known.close()
            self._devices[name] = known = _Device(path, life, now + _DESCRIBED, self._descriptors)
        return known


class _Device:
    """A device as it was when it was opened; only states and counters are read afterwards."""

    def __init__(self, path: str, life: int, until: float, descriptors: Descriptors) -> None:
        self.life = life
        self.until = until  #: monotonic seconds
        known = RdmaPort(
            device=os.path.basename(path), port=0, link_layer="", state="", driver=_driver(path),
            node_guid=_text(f"{path}/node_guid"), firmware=_text(f"{path}/fw_ver"),
        )  # fmt: skip
        numbers = sorted(int(each) for each in _list(f"{path}/ports") if each.isdecimal())
        self._ports = [_Port(path, number, known, descriptors) for number in numbers]

    @property
    def changed(self) -> bool:
        """Whether a port went up or down, or there was none yet: a device is shown before its ports."""
        return not self._ports or any(port.changed for port in self._ports)

    def read(self) -> list[Reading]:
        """OSError: the device is gone."""
        return [port.read(self.life) for port in self._ports]

    def close(self) -> None:
        for port in self._ports:
            port.close()


class _Port:
    def __init__(self, device: str, number: int, known: RdmaPort, descriptors: Descriptors) -> None:
        path = f"{device}/ports/{number}"
        gids = tuple(_gids(path))
        netdev = next((gid.netdev for gid in gids if gid.netdev), "") or _netdev_below(device, number)
        self.changed = False  #: it went up or down since it was opened
        self._known = replace(
            known,
            port=number,
            link_layer=_text(f"{path}/link_layer"),
            speed=_speed(_text(f"{path}/rate")),
            lid=_number(_text(f"{path}/lid")),
            netdev=netdev,
            ifindex=_number(_text(f"{_netdevs(device)}/{netdev}/ifindex")) if netdev else 0,
            gids=gids,
        )
        self._state = _File(f"{path}/state", descriptors)
        self._physical = _File(f"{path}/phys_state", descriptors)
        places = {group: f"{path}/{group}" for group in _GROUPS}
        if number == 1 and not os.path.isdir(places["hw_counters"]):
            places["hw_counters"] = f"{device}/hw_counters"  # of drivers that count by device only
        self._counters = [
            ((group, name), _File(f"{place}/{name}", descriptors))
            for group, place in places.items()
            for name in sorted(_list(place))
            if is_counter(name)
        ]

    def read(self, life: int) -> Reading:
        names, values = [], []
        for name, file in self._counters:
            try:
                value = int(file.read())
            except (OSError, ValueError):
                continue
            if 0 <= value <= _LARGEST:
                names.append(name)
                values.append(value)
        # Last, so that a device that went meanwhile has no reading instead of a part of one.
        state, physical = _named(self._state), _named(self._physical)
        if (state, physical) != (self._known.state, self._known.physical_state):
            self.changed = bool(self._known.state)
            self._known = replace(self._known, state=state, physical_state=physical)
        return Reading(self._known, life, tuple(names), values)

    def close(self) -> None:
        for file in (self._state, self._physical, *(file for _, file in self._counters)):
            file.close()


def _named(file: _File) -> str:
    """``4: ACTIVE`` as ``active``, ``5: LinkUp`` as ``link-up``. OSError: the device is gone."""
    try:
        text = file.read().decode(errors="replace").strip()
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENOENT):
            raise
        return "unknown"
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", text.partition(": ")[2] or text)
    return words.strip("<>").replace(" ", "-").lower()


def _gids(port: str) -> Iterator[Gid]:
    empty = 0
    for index in sorted(int(each) for each in _list(f"{port}/gids") if each.isdecimal()):
        address = _text(f"{port}/gids/{index}")
        if address in ("", _NO_GID):
            empty += 1
            if empty == _EMPTY_GIDS:
                return
            continue
        empty = 0
        yield Gid(
            index=index,
            address=_address(address),
            type=_text(f"{port}/gid_attrs/types/{index}"),
            netdev=_text(f"{port}/gid_attrs/ndevs/{index}"),
        )


def _address(text: str) -> str:
    """An IPv6 address in its short form; ``::ffff:192.0.2.1`` is an IPv4 one."""
    try:
        return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, text))
    except (OSError, ValueError):
        return text


def _speed(text: str) -> int:
    """``100 Gb/sec (4X EDR)`` in bits per second, 0 if it says something else."""
    found = re.match(r"([0-9]+(?:\.[0-9]+)?) Gb/sec", text)
    return round(float(found[1]) * 1e9) if found else 0


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        return 0


def _driver(device: str) -> str:
    """The kernel module; soft-RoCE alone has an interface (``parent``) instead of a device below it."""
    try:
        return os.path.basename(os.readlink(f"{device}/device/driver"))
    except OSError:
        return "rdma_rxe" if os.path.exists(f"{device}/parent") else ""


def _netdev_below(device: str, port: int) -> str:
    """IPoIB's interface of this port: interfaces of the same PCI device say which port they are on."""
    places = f"{device}/device/net"
    below = (each for each in sorted(_list(places)) if _text(f"{places}/{each}/dev_port") == str(port - 1))
    return next(below, "")


def _netdevs(device: str) -> str:
    """/sys/class/net, beside the /sys/class/infiniband that a device was found in."""
    return f"{os.path.dirname(os.path.dirname(device))}/net"


def _text(path: str) -> str:
    """The one line of a file, empty if it cannot be read: an empty place of a table says EINVAL."""
    try:
        with open(path, "rb", buffering=0) as file:
            return (file.read(_LINE) or b"").decode(errors="replace").strip()
    except (OSError, ValueError):  # ValueError: no path, as a name from another file in it is none
        return ""


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
