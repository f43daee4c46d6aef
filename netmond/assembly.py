"""Puts the kernel's half together: each part works, or is absent with a reason.

Nothing here stops the daemon: what cannot start on this machine is a Feature that says why.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from netmond.collector import Sockets, Traffic
from netmond.config import Config
from netmond.errors import NetmondError
from netmond.interfaces import Interfaces
from netmond.kernel import links, programs
from netmond.kernel.cgroups import CgroupPaths, find_cgroup2
from netmond.kernel.compile import Compilation
from netmond.kernel.devices import devices
from netmond.kernel.owners import Process, find_owners
from netmond.kernel.tables import InterfaceTables, SocketTables
from netmond.meter import Meter
from netmond.model import Feature, FeatureState
from netmond.ports import Ports
from netmond.targets import Targets

_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h, Linux 5.14


@dataclass(slots=True)
class Parts:
    """What works here, why the rest does not, and how to take it all off again.

    find_owners: cookies of sockets -> the processes that can be found; None: this kernel has no way to.
    """

    sockets: Sockets | None = None
    find_owners: Callable[[Iterable[int]], Mapping[int, Process]] | None = None
    traffic: Traffic | None = None
    features: list[Feature] = field(default_factory=list)
    closing: ExitStack = field(default_factory=ExitStack)


def assemble(config: Config, *, sockets: Compilation | None, interfaces: Compilation) -> Parts:
    """Waits for the compilers, attaches everything and opens the books. Blocks for up to a second or so."""
    parts = Parts()
    if sockets is None:
        parts.features.append(_off("meter", "switched off by [meter] enabled"))
    else:
        try:
            parts.sockets = _sockets(config, sockets, parts)
        except NetmondError as error:
            parts.features.append(_off("meter", str(error)))
    try:
        parts.traffic = _traffic(config, interfaces, parts)
    except NetmondError as error:
        parts.features += [_off(name, str(error)) for name in ("interfaces", "targets")]
    return parts


def _off(name: str, reason: str) -> Feature:
    return Feature(name=name, state=FeatureState.OFF, reason=reason)


def _sockets(config: Config, compilation: Compilation, parts: Parts) -> Sockets:
    loaded = compilation.result()
    root = find_cgroup2()
    tables = SocketTables.open(loaded.maps, slots=config.meter.slots, peers=config.meter.peers)
    meter = Meter(tables, paths=CgroupPaths(root).look_up, netns=_own_netns(), idle=config.meter.idle)
    attached = links.attach_meter(loaded.programs, _cgroup(root, config.meter.cgroup))
    parts.closing.callback(loaded.close)
    parts.closing.push(attached)
    if programs.OWNERS_PROGRAM in loaded.programs:
        parts.find_owners = partial(find_owners, loaded.programs[programs.OWNERS_PROGRAM])
    state = FeatureState.DEGRADED if loaded.notes else FeatureState.ON
    parts.features.append(Feature(name="meter", state=state, reason="; ".join(loaded.notes)))
    return Sockets(meter=meter, losses=tables.losses)


def _cgroup(root: Path, wanted: str) -> Path:
    """The cgroup to meter: the root, one below it, or an absolute path."""
    return Path(wanted) if wanted.startswith(str(root)) else root / wanted.lstrip("/")


def _own_netns() -> int:
    """The cookie of our network namespace; 0 on kernels before 5.14, where sockets have none either."""
    with socket.socket(socket.AF_UNIX) as any_socket:
        try:
            answer = any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError:
            return 0
    return int(struct.unpack("=Q", answer)[0])


def _traffic(config: Config, compilation: Compilation, parts: Parts) -> Traffic:
    loaded = compilation.result()
    parts.closing.callback(loaded.close)
    tables = InterfaceTables.open(
        loaded.maps, targets=config.targets.limit, forwarded=config.interfaces.forwarded
    )
    links.remove_leftovers(devices())
    ports = Ports(tables)
    interfaces = Interfaces(
        config.interfaces,
        ports=ports,
        attach=lambda ifindex, mode: links.Attachment(loaded.programs, ifindex, mode),
        devices=devices,
    )
    parts.closing.callback(interfaces.close)
    targets = Targets(tables, config.targets.limit)
    parts.features.append(Feature(name="targets", state=FeatureState.ON))
    return Traffic(interfaces=interfaces, ports=ports, targets=targets, losses=tables.losses)
