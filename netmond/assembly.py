"""Puts the kernel's half together: each part works, or is absent with a reason.

Nothing here stops the daemon: what cannot start on this machine is a Feature that says why.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from netmond.collector import Sockets, Traffic
from netmond.config import Config
from netmond.errors import NetmondError, Unavailable
from netmond.handover import Handover, RunDirectory
from netmond.interfaces import Interfaces
from netmond.kernel import links, programs, taps, wire
from netmond.kernel.cgroups import CgroupPaths, find_cgroup2
from netmond.kernel.compile import Loaded
from netmond.kernel.devices import devices
from netmond.kernel.owners import Process, find_owners
from netmond.kernel.packet_log import PacketLogTables
from netmond.kernel.programs import PACKET_LOG_MAPS
from netmond.kernel.queues import queues
from netmond.kernel.tables import InterfaceTables, SocketTables
from netmond.kernel.tasks import Tasks
from netmond.ledger import Ledger
from netmond.meter import Meter
from netmond.model import Feature, FeatureState, Loss, Network
from netmond.packetlog.given import Kernel
from netmond.ports import Ports
from netmond.rdma.attribution import Attribution
from netmond.rdma.census import CensusTaker
from netmond.rdma.monitor import RdmaMonitor
from netmond.rdma.register import Register
from netmond.rdma.sampler import Sampler
from netmond.roce import Roce
from netmond.sessions.supervisor import Shared
from netmond.succession import MeterSuccession, TrafficSuccession
from netmond.targets import Targets
from netmond.totals import Totals

_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h, Linux 5.14


@dataclass(slots=True)
class Parts:
    """What works here, why the rest does not, and how to take it all off again.

    find_owners: cookies of sockets -> the processes that can be found; None: this kernel has no way to.
    """

    directory: RunDirectory
    sockets: Sockets | None = None
    find_owners: Callable[[Iterable[int]], Mapping[int, Process]] | None = None
    packet_log: Kernel = field(default_factory=lambda: Kernel(reason="the meter is off"))
    shared: Shared = field(default_factory=Shared)
    traffic: Traffic | None = None
    rdma: RdmaMonitor | None = None
    features: list[Feature] = field(default_factory=list)
    closing: ExitStack = field(default_factory=ExitStack)
    handovers: list[Handover] = field(default_factory=list)
    meter_succession: MeterSuccession | None = None
    traffic_succession: TrafficSuccession | None = None

    def keep(self, since: float, configured: Sequence[Network]) -> None:
        """Keeps what has been accounted for, for the next daemon. See TrafficSuccession.keep()."""
        if self.meter_succession:
            self.meter_succession.keep(since=since)
        if self.traffic_succession:
            self.traffic_succession.keep(configured)

    def restart_feature(self) -> Feature:
        """Whether counting goes on while the daemon is away."""
        reasons = [self.directory.reason, *(handover.reason for handover in self.handovers)]
        reason = next(filter(None, reasons), "")
        state = FeatureState.OFF if reason else FeatureState.ON
        return Feature(name="restart", state=state, reason=reason)

    def losses(self) -> tuple[Loss, ...]:
        """Our line of the loss ledger."""
        meaning = "checkpoints that could not be written: the next one makes up for it"
        count = sum(handover.failures for handover in self.handovers)
        return (Loss(name="restart.not-written", count=count, meaning=meaning),)

    def close(self, *, leave: bool) -> None:
        """Takes everything off; or leaves it to the next daemon, as far as that is possible."""
        if leave and not self.restart_feature().reason:
            return
        self.closing.close()
        for handover in self.handovers:
            handover.end()


def assemble(
    config: Config,
    totals: Totals,
    directory: RunDirectory,
    *,
    sockets: Handover | None,
    interfaces: Handover,
) -> Parts:
    """Waits for the compilers, attaches everything and opens the books. Blocks for up to a second or so.

    totals: what to go on from where there is no handover.
    """
    parts = Parts(directory=directory, handovers=[interfaces] if sockets is None else [sockets, interfaces])
    if sockets is None:
        parts.features.append(_off("meter", "switched off by [meter] enabled"))
    else:
        try:
            parts.sockets = _sockets(config, totals, sockets, parts)
        except NetmondError as error:
            parts.features.append(_off("meter", str(error)))
            sockets.end()
    rdma = Attribution(parts.sockets.meter.owners.unit_rows if parts.sockets else None)
    try:
        parts.traffic = _traffic(config, totals, interfaces, rdma, parts)
    except NetmondError as error:
        parts.features += [_off(name, str(error)) for name in ("interfaces", "targets")]
        interfaces.end()
        totals.restore_rdma(rdma.usage)
    parts.rdma = _rdma(config, rdma, parts)
    return parts


def _off(name: str, reason: str) -> Feature:
    return Feature(name=name, state=FeatureState.OFF, reason=reason)


def _sockets(config: Config, totals: Totals, handover: Handover, parts: Parts) -> Sockets:
    loaded = handover.load()
    parts.closing.callback(loaded.close)
    root = find_cgroup2()
    tables = SocketTables.open(
        loaded.maps, slots=config.meter.slots, peers=config.meter.peers, fresh=handover.arrays is None
    )
    netns = _own_netns()
    tables.count_interfaces_of(netns)
    meter_of = partial(Meter, paths=CgroupPaths(root).look_up, netns=netns, idle=config.meter.idle)
    ledger = Ledger(wire.SOCKET_LOSSES, tables.losses)
    succession = MeterSuccession(handover=handover, meter=meter_of(tables), ledger=ledger)
    if not succession.resume():
        totals.restore_owners(succession.meter.owners)
    succession.begin(loaded)
    cgroup = _cgroup(root, config.meter.cgroup)
    parts.closing.push(links.attach_meter(loaded.programs, cgroup, handover.links))
    succession.settle(meter_of)
    parts.meter_succession = succession
    if programs.OWNERS_PROGRAM in loaded.programs:
        parts.find_owners = partial(find_owners, loaded.programs[programs.OWNERS_PROGRAM])
    parts.packet_log = _packet_log(config, loaded)
    maps = {"tickets": loaded.maps["owners"], "flows": loaded.maps["flows"]}
    parts.shared = Shared(maps=maps, slots=config.meter.slots)
    state = FeatureState.DEGRADED if loaded.notes else FeatureState.ON
    parts.features.append(Feature(name="meter", state=state, reason="; ".join(loaded.notes)))
    return Sockets(meter=succession.meter, ledger=succession.ledger, whole=cgroup == root)


def _packet_log(config: Config, loaded: Loaded) -> Kernel:
    tables = PacketLogTables.open(loaded.maps)
    if tables is None:
        return Kernel(reason="; ".join(loaded.notes))
    maps = {name: loaded.maps[name] for name in (*PACKET_LOG_MAPS, "flows")}
    return Kernel(maps=maps, tables=tables, slots=config.meter.slots)


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


def _traffic(config: Config, totals: Totals, handover: Handover, rdma: Attribution, parts: Parts) -> Traffic:
    loaded = handover.load()
    parts.closing.callback(loaded.close)
    tables = InterfaceTables.open(
        loaded.maps, targets=config.targets.limit, forwarded=config.interfaces.forwarded
    )
    ports, roce, targets = Ports(tables), Roce(tables.roce), Targets(tables, config.targets.limit)
    interfaces = Interfaces(
        config.interfaces,
        ports=ports,
        attach=lambda ifindex, mode: links.Attachment(loaded.programs, ifindex, mode, handover.links),
        devices=devices,
        queues=queues,
    )
    parts.closing.callback(interfaces.close)
    succession = TrafficSuccession(
        handover=handover,
        ports=ports,
        roce=roce,
        rdma=rdma,
        targets=targets,
        interfaces=interfaces,
        ledger=Ledger(wire.INTERFACE_LOSSES, tables.losses),
    )
    if not succession.resume(config.targets.addresses):
        totals.restore_targets(targets, config.targets)
        totals.restore_rdma(rdma.usage)
    succession.begin(loaded)
    interfaces.refresh()
    links.remove_leftovers(index for index in devices() if index not in ports)
    taps.remove_leftovers(devices())
    succession.settle()
    parts.traffic_succession = succession
    parts.features.append(Feature(name="targets", state=FeatureState.ON))
    return Traffic(interfaces=interfaces, ports=ports, roce=roce, targets=targets, ledger=succession.ledger)


def _cgroup_paths() -> Callable[[Iterable[int]], Mapping[int, str]]:
    """For another thread than the meter's: cgroup ids -> paths; where there is no cgroup2, none."""
    try:
        return CgroupPaths(find_cgroup2()).look_up
    except Unavailable:
        return lambda _: {}


def _rdma(config: Config, attribution: Attribution, parts: Parts) -> RdmaMonitor | None:
    if not config.rdma.enabled:
        parts.features.append(_off("rdma", "switched off by [rdma] enabled"))
        return None
    monitor = RdmaMonitor(
        attribution,
        sampler=Sampler(),
        census=CensusTaker(Register(Tasks().read, _cgroup_paths())),
        roce=parts.traffic.roce if parts.traffic else None,
    )
    parts.closing.callback(monitor.close)
    return monitor
