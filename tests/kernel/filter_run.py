"""Filters as the kernel runs them: the C that netmond makes of expressions, loaded, given frame after frame.

A frame may be of any length, also 0: it lies behind a carrier of its own, and its head, which a capturing
program would have copied, is put into a map.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.testrun import Run
from netmond.frames.expressions import ETHERNET, Classic, Filter
from netmond.frames.filter_source import HEAD, function, source
from netmond.kernel.compile import Compilation
from netmond.kernel.tables import map_array
from netmond.kernel.unit import Program, Unit

_CARRIER = bytes(14)
_EACH = 24  # filters in one program

_START = """
struct given {
    u8 head[FILTER_HEAD];
    u32 have;
    u32 length;
};
BPF_F_TABLE("array", u32, struct given, given, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, u64, verdicts, 1024, BPF_F_MMAPABLE);
static __always_inline void tell(u32 place, u32 verdict)
{
    u64 *told = verdicts.lookup(&place);

    if (told)
        *told = verdict;
}
"""
_PROGRAM = """
int probe_{number}(struct __sk_buff *skb)
{{
    u32 place = 0;
    struct given *frame = given.lookup(&place);

    if (!frame)
        return 0;
{calls}
    return 0;
}}
"""


class Filters:
    """Some functions in C, all of which judge the same frames."""

    def __init__(self, functions: Sequence[tuple[str, str]]) -> None:
        """functions: name of each, and the C that defines it."""
        calls = [
            f"    tell({place}, {name}(frame->head, frame->have, frame->length, {len(_CARRIER)}, skb));"
            for place, (name, _) in enumerate(functions)
        ]
        parts = [calls[start : start + _EACH] for start in range(0, len(calls), _EACH)]
        programs = [
            _PROGRAM.format(number=number, calls="\n".join(part)) for number, part in enumerate(parts)
        ]
        text = "\n".join(['#include "filter.h"', *(made for _, made in functions), _START, *programs])
        with tempfile.TemporaryDirectory(prefix="netmond-filters-") as directory:
            path = Path(directory, "filters.c")
            path.write_text(text)
            unit = Unit(
                source=str(path),
                defines={},
                programs=tuple(
                    Program(name=f"probe_{number}", kind="SCHED_CLS") for number in range(len(programs))
                ),
                maps=("given", "verdicts"),
            )
            self._loaded = Compilation(unit).result()
        given = map_array(self._loaded.maps["given"], np.uint8, HEAD + 8)
        self._head, self._figures = given[:HEAD], given[HEAD:].view(np.uint32)
        self._verdicts = map_array(self._loaded.maps["verdicts"], np.uint64, len(functions))

    def judge(self, frame: bytes) -> list[bool]:
        """Which of the functions take the frame."""
        start = frame[:HEAD]
        self._head[: len(start)] = np.frombuffer(start, np.uint8)
        self._head[len(start) :] = 0xA5  # what must not be read
        self._figures[:] = len(start), len(frame)
        self._verdicts[:] = 0xFFFFFFFFFFFFFFFF
        for program in self._loaded.programs.values():
            Run(program=program, frame=_CARRIER + frame).time(1)
        assert self._verdicts.max(initial=0) <= 0xFFFFFFFF
        return [verdict != 0 for verdict in self._verdicts.tolist()]

    def close(self) -> None:
        self._loaded.close()


def whole_functions(filters: Sequence[Filter]) -> list[tuple[str, str]]:
    """What a capture calls for frames with an Ethernet header, for each filter."""
    sources = [source({ETHERNET: each}).replace('#include "filter.h"', "") for each in filters]
    return [
        (f"whole{place}_ethernet", text.replace(" filter_", f" whole{place}_"))
        for place, text in enumerate(sources)
    ]


def plain_functions(programs: Sequence[Classic]) -> list[tuple[str, str]]:
    """A function for each program."""
    return [(f"program_{place}", function(f"program_{place}", each)) for place, each in enumerate(programs)]
