"""Which interfaces a capture is of, and when they are gone."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from netmond.errors import NetmondError, NoSuchInterface
from netmond.kernel import netlink
from netmond.kernel.devices import Device, default_route_devices, devices

ANY = "any"

#: Operational states (RFC 2863) of interfaces that nothing passes.
_DOWN = ("down", "notpresent", "lowerlayerdown")


def choose(names: Sequence[str]) -> list[Device]:
    """Those named; `any`: all that are up; none: the one that has the default route.

    NetmondError: there is none of that name, or not just one; which there are.
    """
    present = sorted(devices().values(), key=lambda device: device.info.index)
    if not names:
        routes = default_route_devices()
        found = [device for device in present if device.info.index in routes]
        if len(found) == 1:
            return found
        several = "several interfaces have" if found else "no interface has"
        raise NetmondError(f"{several} a default route; say which one is meant: {_list(found or present)}")
    if ANY in names:
        return [device for device in present if device.info.state not in _DOWN]
    by_name = {device.info.name: device for device in present}
    for name in names:
        if name not in by_name:
            raise NoSuchInterface(f"there is no interface {name}; there are {_list(present)}")
    return [by_name[name] for name in dict.fromkeys(names)]


def _list(found: Collection[Device]) -> str:
    return ", ".join(device.info.name for device in found)


class Departures:
    """Tells when interfaces go: taken away, or moved to another network namespace."""

    def __init__(self) -> None:
        self._socket = netlink.subscribe(netlink.RTMGRP_LINK)

    def fileno(self) -> int:
        return self._socket.fileno()

    def gone(self, watched: Collection[int]) -> set[int]:
        """Which of these interfaces are not there any more."""
        told = False
        while True:
            try:
                self._socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: some news were lost
                pass
            told = True
        return set(watched) - devices().keys() if told else set()

    def close(self) -> None:
        self._socket.close()
