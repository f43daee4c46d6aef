"""As a program (``python3 -m bench.ticker COUNT``): the collector over COUNT slots with made-up traffic.

Every line of input is answered with the ns it took: ``tick`` for a tick of the collector, ``loop`` for the
same accounting as a loop over dictionaries, traffic for each being made before and not timed; ``checkpoint``
for writing down what the last tick accounted for, on a tmpfs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter_ns
from typing import TYPE_CHECKING, NoReturn

from netmond.footprint import settle, stay_small

if TYPE_CHECKING:
    from bench.load import Load
    from netmond.collector import Collector
    from netmond.kernel.tables import SocketTables
    from netmond.meter import Meter

_SLOTS = 131_072  # or as many as are needed
_PEERS = 16_384
_TARGETS = 1_000
_USERS, _UNITS, _PROCESSES = 53, 61, 2003
_IDLE = 600.0
_TMPFS = "/dev/shm"


def _collector(slots: int) -> tuple[Collector, SocketTables, Meter]:
    """The collector as netmond.assembly puts it together, attached to nothing."""
    from bench.frames import target
    from netmond.collector import Collector, Sockets, Traffic
    from netmond.config import InterfacesConfig
    from netmond.interfaces import Interfaces
    from netmond.kernel import wire
    from netmond.kernel.compile import Compilation
    from netmond.kernel.devices import devices
    from netmond.kernel.programs import interface_unit, socket_unit
    from netmond.kernel.tables import InterfaceTables, SocketTables
    from netmond.ledger import Ledger
    from netmond.meter import Meter
    from netmond.ports import Ports
    from netmond.roce import Roce
    from netmond.targets import Targets

    compilations = (
        Compilation(socket_unit(slots=slots, peers=_PEERS, cgroup="")),
        Compilation(interface_unit(targets=_TARGETS, forwarded=_PEERS)),
    )
    meter_maps, interface_maps = (compilation.result().maps for compilation in compilations)
    tables = SocketTables.open(meter_maps, slots=slots, peers=_PEERS)
    traffic = InterfaceTables.open(interface_maps, targets=_TARGETS, forwarded=_PEERS)
    ports = Ports(traffic)
    config = InterfacesConfig(monitor=(), attach="auto", forwarded=_PEERS)

    def refuse(ifindex: int, mode: str) -> NoReturn:
        raise AssertionError(f"nothing is to be attached to {ifindex} ({mode})")

    targets = Targets(traffic, _TARGETS)
    targets.add([target(4, number) for number in range(_TARGETS)], 0.0)
    paths = {number: f"/system.slice/unit{number}.service" for number in range(1, _UNITS + 1)}
    meter = Meter(tables, paths=lambda ids: {id_: paths[id_] for id_ in ids}, netns=1, idle=_IDLE)
    collector = Collector(
        sockets=Sockets(meter=meter, ledger=Ledger(wire.SOCKET_LOSSES, tables.losses)),
        traffic=Traffic(
            interfaces=Interfaces(config, ports=ports, attach=refuse, devices=devices),
            ports=ports,
            roce=Roce(traffic.roce),
            targets=targets,
            ledger=Ledger(wire.INTERFACE_LOSSES, traffic.losses),
        ),
    )
    return collector, tables, meter


def _write(meter: Meter, file: Path) -> None:
    """As netmond.succession keeps it after every tick."""
    from netmond import checkpoint

    arrays = {**meter.owners.checkpoint(), **meter.checkpoint()}
    checkpoint.write(file, checkpoint.Checkpoint({}, arrays))
    meter.release()


def _answer(what: str, count: int, load: Load, collector: Collector, meter: Meter, directory: Path) -> int:
    """The ns it took. RuntimeError: the figures are wrong."""
    if what != "checkpoint":
        load.grow()
    began = perf_counter_ns()
    if what == "checkpoint":
        _write(meter, directory / "checkpoint")
    elif what == "loop":
        load.loop()
    else:
        collector.tick()
    took = perf_counter_ns() - began
    flows = collector.snapshot.flows
    if what == "tick" and (len(flows) != count or int(flows.counters[:, 1].sum()) != load.bytes_in):
        raise RuntimeError("the snapshot does not hold what was counted")
    return took


def main(count: int) -> None:
    """Answers until the input ends."""
    stay_small()
    collector, tables, meter = _collector(max(_SLOTS, count))

    from bench.load import Load

    load = Load(tables, count, users=_USERS, units=_UNITS, processes=_PROCESSES)
    with TemporaryDirectory(prefix="netmond-bench-", dir=_TMPFS) as directory:
        for line in sys.stdin:
            print(_answer(line.strip(), count, load, collector, meter, Path(directory)), flush=True)
            settle(count)


if __name__ == "__main__":
    main(int(sys.argv[1]))
