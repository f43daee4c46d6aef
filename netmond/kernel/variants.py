"""Variants of one compiled function: bpf/variant.h explains why, and the marks in its code.

Instructions are those of RFC 9669, in host byte order: opcode, registers (destination in the low half),
offset, immediate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from netmond.errors import KernelError

INSTRUCTION = np.dtype([("code", "u1"), ("registers", "u1"), ("offset", "i2"), ("immediate", "i4")])

_LOAD_IMMEDIATE_64 = 0x18  # BPF_LD | BPF_IMM | BPF_DW, of two instructions
_MAP_DESCRIPTOR = 1  # as its source register: BPF_PSEUDO_MAP_FD
_MOVE_IMMEDIATE = (0xB7, 0xB4)  # of 64 and 32 bits
_MOVE = 0xBF
_LOAD = 0x79  # BPF_LDX | BPF_MEM | BPF_DW

# bpf/variant.h
_CONSTANT_MARK = 0x5CA1AB00
_ARGUMENT_MARK = 0x6F00
_ARGUMENTS = 32

#: The place of an argument that is the context itself
CONTEXT = -1


def place_maps(code: bytes, places: Mapping[int, int]) -> bytes:
    """Puts other numbers in the place of descriptors of maps. KernelError: one is not among `places`."""
    instructions = np.frombuffer(code, INSTRUCTION).copy()
    source = instructions["registers"] >> 4
    uses = (instructions["code"] == _LOAD_IMMEDIATE_64) & (source == _MAP_DESCRIPTOR)
    used = instructions["immediate"][uses].tolist()
    if not places.keys() >= set(used):
        raise KernelError("a function uses a map that was not asked for")
    instructions["immediate"][uses] = [places[number] for number in used]
    return instructions.tobytes()


def variant(code: bytes, constants: Sequence[int], arguments: Mapping[int, int]) -> bytes:
    """A copy of a function with values where the marks are.

    constants: by number; arguments: offset in the program's context by number, or CONTEXT; those that are
    not there become 0.
    """
    instructions = np.frombuffer(code, INSTRUCTION).copy()
    immediate = instructions["immediate"]
    moves = np.isin(instructions["code"], _MOVE_IMMEDIATE) & (immediate >> 8 == _CONSTANT_MARK >> 8)
    immediate[moves] = np.array(constants, np.int32)[immediate[moves] & 0xFF]
    places = (instructions["offset"] - _ARGUMENT_MARK) // 8
    for at in np.flatnonzero(
        (instructions["code"] == _LOAD) & (places >= 0) & (places < _ARGUMENTS)
    ).tolist():
        offset = arguments.get(int(places[at]))
        if offset is None:
            instructions[at] = _MOVE_IMMEDIATE[0], instructions["registers"][at] & 0x0F, 0, 0
        elif offset == CONTEXT:
            instructions[at] = _MOVE, instructions["registers"][at], 0, 0
        else:
            instructions["offset"][at] = offset
    return instructions.tobytes()
