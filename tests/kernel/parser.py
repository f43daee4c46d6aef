"""The packet parser and the interface programs, as the daemon loads them, fed with single packets.

Each packet goes by BPF_PROG_TEST_RUN through parser_probe.c, which tells what bpf/parse.h has read, and
through interface_ingress, whose counters tell the class; through interface_xdp where the kernel makes no
socket buffer of so short a packet.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np

from bench.testrun import Run
from netmond.kernel import wire
from netmond.kernel.compile import Compilation, Loaded
from netmond.kernel.programs import MAX_PORTS, interface_unit
from netmond.kernel.role import Role
from netmond.kernel.tables import InterfaceTables, map_array
from netmond.kernel.unit import Program, Unit
from tests.kernel.packet_facts import VERDICT, Facts, told
from tests.kernel.run_counts import run_count

ETHERNET = 14  # bytes; the programs are given no less
_PROBE = Unit(
    source=str(Path(__file__).with_name("parser_probe.c")),
    defines={},
    programs=(Program(name="parser_probe", kind="SCHED_CLS"),),
    maps=("verdicts",),
)
_CARRIER = bytes(12) + b"\x88\xb5"  # see parser_probe.c
_LOOPBACK = 1  # interface index: where test runs happen
_TARGETS, _FORWARDED = 1, 16
_CLASSES = wire.CLASSES[: wire.EXCLUSIVE_CLASSES]


class Parser:
    """The programs under test, on one CPU: this process stays there from now on."""

    def __init__(self, cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})
        unit = interface_unit(targets=_TARGETS, forwarded=_FORWARDED)
        probe, ours = (child.result() for child in (Compilation(_PROBE), Compilation(unit)))
        self._loaded: tuple[Loaded, ...] = (probe, ours)
        self._probe = probe.programs["parser_probe"]
        self._programs = [ours.programs[f"interface_{hook}"] for hook in ("ingress", "xdp")]
        self._verdict = map_array(probe.maps["verdicts"], np.uint8, VERDICT.size).data
        tables = InterfaceTables.open(ours.maps, targets=_TARGETS, forwarded=_FORWARDED)
        tables.set_port(_LOOPBACK, 0, Role(link_header=ETHERNET))
        start = cpu * MAX_PORTS * wire.PORT_COUNTERS.itemsize
        row = map_array(ours.maps["port_counters"], wire.PORT_COUNTERS, 1, offset=start)[0]
        self._packets = row["in"]["class"]["packets"][: wire.EXCLUSIVE_CLASSES]
        self._losses = tables.losses
        self._malformed = [name for name, _ in wire.INTERFACE_LOSSES].index("interfaces.malformed")

    def parse(self, frame: bytes) -> Facts:
        """What bpf/parse.h says."""
        Run(program=self._probe, frame=_CARRIER + frame).time(1)
        return told(self._verdict)

    def count(self, frame: bytes) -> dict[str, int]:
        """What is added where, by class; and `malformed`, the line in the loss ledger."""
        before = self.counted()
        try:
            Run(program=self._programs[0], frame=frame).time(1)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            Run(program=self._programs[1], frame=frame).time(1)
        return {name: count - before[name] for name, count in self.counted().items() if count > before[name]}

    def counted(self) -> dict[str, int]:
        """All that was counted so far."""
        counts = (*self._packets.tolist(), int(self._losses[self._malformed]))
        return dict(zip((*_CLASSES, "malformed"), counts, strict=True))

    def runs(self) -> int:
        """How often the interface programs have run, while the kernel counted that."""
        return sum(map(run_count, self._programs))

    def close(self) -> None:
        for loaded in self._loaded:
            loaded.close()
