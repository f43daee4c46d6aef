"""As a program (``python3 -m bench.ticker COUNT``): the collector over COUNT slots with made-up traffic.

Every line of input is answered with the ns it took: ``tick`` for a tick of the collector, ``loop`` for the
same accounting as a loop over dictionaries. Traffic for each is made before and not timed.
"""

from __future__ import annotations

import sys
from time import perf_counter_ns
from typing import TYPE_CHECKING, NoReturn

from netmond.footprint import make_room, stay_small

if TYPE_CHECKING:
    from netmond.collector import Collector
    from netmond.kernel.tables import SocketTables

_SLOTS = 131_072
_PEERS = 16_384
_TARGETS = 1_000
_USERS, _UNITS, _PROCESSES = 53, 61, 2003
_IDLE = 600.0


def _collector() -> tuple[Collector, SocketTables]:
    """The collector as netmond.assembly puts it together, attached to nothing."""
    from bench.frames import target
    from netmond.collector import Collector, Sockets, Traffic
    from netmond.config import InterfacesConfig
    from netmond.interfaces import Interfaces
    from netmond.kernel.compile import Compilation
    from netmond.kernel.devices import devices
    from netmond.kernel.programs import interface_unit, socket_unit
    from netmond.kernel.tables import InterfaceTables, SocketTables
    from netmond.meter import Meter
    from netmond.ports import Ports
    from netmond.targets import Targets

    compilations = (
        Compilation(socket_unit(slots=_SLOTS, peers=_PEERS)),
        Compilation(interface_unit(targets=_TARGETS, forwarded=_PEERS)),
    )
    meter_maps, interface_maps = (compilation.result().maps for compilation in compilations)
    tables = SocketTables.open(meter_maps, slots=_SLOTS, peers=_PEERS)
    traffic = InterfaceTables.open(interface_maps, targets=_TARGETS, forwarded=_PEERS)
    ports = Ports(traffic)
    config = InterfacesConfig(monitor=(), attach="auto", forwarded=_PEERS)

    def refuse(ifindex: int, mode: str) -> NoReturn:
        raise AssertionError(f"nothing is to be attached to {ifindex} ({mode})")

    targets = Targets(traffic, _TARGETS)
    targets.add([target(4, number) for number in range(_TARGETS)], 0.0)
    paths = {number: f"/system.slice/unit{number}.service" for number in range(1, _UNITS + 1)}
    collector = Collector(
        sockets=Sockets(
            meter=Meter(tables, paths=lambda ids: {id_: paths[id_] for id_ in ids}, netns=1, idle=_IDLE),
            losses=tables.losses,
        ),
        traffic=Traffic(
            interfaces=Interfaces(config, ports=ports, attach=refuse, devices=devices),
            ports=ports,
            targets=targets,
            losses=traffic.losses,
        ),
    )
    return collector, tables


def main(count: int) -> None:
    """Answers until the input ends."""
    stay_small()
    collector, tables = _collector()

    from bench.load import Load

    load = Load(tables, count, users=_USERS, units=_UNITS, processes=_PROCESSES)
    for line in sys.stdin:
        load.grow()
        began = perf_counter_ns()
        if line.strip() == "tick":
            snapshot = collector.tick()
            took = perf_counter_ns() - began
            make_room(len(snapshot.flows))
            if len(snapshot.flows) != count or int(snapshot.flows.counters[:, 1].sum()) != load.bytes_in:
                raise RuntimeError("the snapshot does not hold what was counted")
        else:
            load.loop()
            took = perf_counter_ns() - began
        print(took, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
