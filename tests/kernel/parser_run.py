"""Compares the real parser with scapy; several of these run side by side.

``python3 -m tests.kernel.parser_run CPU SEED COUNT`` prints a Result as JSON. In a process of its own,
because the decoder tells scapy to dissect otherwise than it does by itself.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice

from tests.kernel.decoder_differences import Difference, explained
from tests.kernel.frame_maker import FrameMaker
from tests.kernel.packet_facts import Facts
from tests.kernel.parser import ETHERNET, Parser
from tests.kernel.run_counts import counting_runs
from tests.kernel.scapy_decoder import decode, dissect

_SHOWN = 5  # disagreements told in full


@dataclass(frozen=True, slots=True)
class Result:
    """`counted`: packets by class as the interface programs counted them; `runs`: how often they ran."""

    frames: int
    kinds: dict[str, int]
    differences: dict[str, int]
    disagreements: int
    shown: list[str]
    counted: dict[str, int]
    runs: int


def compare(parser: Parser, frames: Iterable[bytes]) -> Result:
    """Parses, decodes and counts every frame."""
    kinds: Counter[str] = Counter()
    differences = Counter({name.value: 0 for name in Difference})
    shown: list[str] = []
    total = disagreements = 0
    for frame in frames:
        total += 1
        ours, packet = parser.parse(frame), dissect(frame)
        theirs = decode(packet, len(frame))
        if ours != theirs:
            theirs, names = explained(frame, packet, theirs)
            differences.update(names if ours == theirs else ())
        kinds[ours.kind] += 1
        added = parser.count(frame) if len(frame) >= ETHERNET else _expected(theirs)
        if ours != theirs or added != _expected(theirs):
            disagreements += 1
            shown.append(f"{frame.hex()}\n  netmond {ours}, counted {added}\n  scapy   {theirs}")
            del shown[_SHOWN:]
    counted = parser.counted()
    del counted["malformed"]  # they are among the others
    return Result(total, dict(kinds), dict(differences), disagreements, shown, counted, parser.runs())


def _expected(facts: Facts) -> dict[str, int]:
    """What a frame adds to the counters."""
    return {"other": 1, "malformed": 1} if facts.kind == "malformed" else {facts.kind: 1}


def main(cpu: int, seed: int, count: int) -> None:
    with counting_runs():
        parser = Parser(cpu)
        print(json.dumps(asdict(compare(parser, islice(FrameMaker(seed), count)))))
        parser.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
