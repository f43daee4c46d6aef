"""Classic BPF (linux/filter.h, bpf(4)) as C on bpf/filter.h: a function for a program, a line for a step.

The kernel runs classic programs on packet sockets only, where nobody can tell whose a packet is. As part of
our program a filter costs less, too: the compiler makes a search of a list of hosts. Jumps only go forward,
as in every program the kernel takes, so a function has an end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from netmond.errors import InvalidArgs, LimitExceeded
from netmond.frames.expressions import ETHERNET, NOTHING, RAW, Classic, Filter, Instruction

#: Instructions of all programs of a filter together: what 200 IPv6 hosts take. It compiles in 4 s for each
#: program it is in, where its jumps still reach from end to end (32,767 of the kernel's instructions).
MAX_INSTRUCTIONS = 8192
_SEEK_COST = 8  # of one that may read behind the head

# Classes, and in each the fields of an instruction's code.
_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)
_SIZES = {0x00: ("W", 4), 0x08: ("H", 2), 0x10: ("B", 1)}
_BYTE = 0x10
_IMM, _ABS, _IND, _MEM, _LEN, _MSH = range(0x00, 0xC0, 0x20)
_OPERATORS = {0x00: "+", 0x10: "-", 0x20: "*", 0x30: "/", 0x40: "|", 0x50: "&", 0x90: "%", 0xA0: "^"}
_DIVISIONS = (0x30, 0x90)
_SHIFTS = {0x60: "<<", 0x70: ">>"}
_NEG = 0x80
_JA = 0x00
_COMPARISONS = {0x10: "==", 0x20: ">", 0x30: ">=", 0x40: "&"}
_X = 0x08
_RETURN_A = 0x10
_TXA = 0x80
_MEMORY = 16

#: FILTER_HEAD of bpf/filter.h
HEAD = 128

#: Absolute offsets from here on mean other things than the frame (SKF_LL_OFF): its direction, its interface.
_BEYOND_FRAMES = 0xFFE00000

_NAMES = {ETHERNET: "ethernet", RAW: "raw"}
_EVERYTHING: Classic = (Instruction(_RET, 0, 0, 1),)

_WRAPPER = """\
/* Whether a frame matches: 0 if not. */
static __always_inline u32 filter_{name}(FILTER_ARGUMENTS)
{{
{body}    return filter_{name}_plain(head, have, length, shift, skb);
}}
"""
_TAGGED = """\
    u32 type = have < 14 ? 0 : FILTER_H(head + 12);

    if (type == 0x8100 || type == 0x88a8 || type == 0x9100)
        return filter_{name}_tagged(head, have, length, shift, skb);
"""


def source(filters: Mapping[int, Filter]) -> str:
    """C that defines ``u32 filter_ethernet(FILTER_ARGUMENTS)`` and ``filter_raw``, see bpf/filter.h.

    filters: by link type; none at all: everything matches. InvalidArgs: one has what no program here can do.
    LimitExceeded: they are too long.
    """
    cost = sum(_SEEK_COST if _seeks(each) else 1 for each in chain(*_programs(filters)))
    if cost > MAX_INSTRUCTIONS:
        raise LimitExceeded(
            f"the filter is too long: it costs {cost} instructions, {MAX_INSTRUCTIONS} are allowed; "
            "a network (net 192.0.2.0/24) takes fewer than its hosts, 'dst host' fewer than 'host'"
        )
    parts = ['#include "filter.h"\n']
    for linktype, name in _NAMES.items():
        filter_ = filters.get(linktype, Filter(NOTHING)) if filters else Filter(_EVERYTHING)
        parts.append(function(f"filter_{name}_plain", filter_.plain))
        if filter_.tagged is not None:
            parts.append(function(f"filter_{name}_tagged", filter_.tagged))
        body = _TAGGED.format(name=name) if filter_.tagged is not None else ""
        parts.append(_WRAPPER.format(name=name, body=body))
    return "\n".join(parts)


def _programs(filters: Mapping[int, Filter]) -> Iterator[Classic]:
    for each in filters.values():
        yield each.plain
        yield each.tagged or ()


def _seeks(each: Instruction) -> bool:
    """Whether it reads what may lie behind the head."""
    reads = each.code & 7 in (_LD, _LDX) and each.code & 0xE0 in (_ABS, _IND)
    return reads and (each.code & 0xE0 == _IND or each.k + _SIZES[each.code & 0x18][1] > HEAD)


def function(name: str, program: Classic) -> str:
    """One program as a C function of that name. InvalidArgs: it has what cannot be done here."""
    targets = {place + 1 + by for place, each in enumerate(program) for by in _jumps(each)}
    if not program or max(targets, default=0) >= len(program) or program[-1].code & 7 != _RET:
        raise InvalidArgs("filter: a program without an end (a loop, as of protochain, cannot be)")
    memory = sorted({f"M{_word(each)}" for each in program if _uses_memory(each)})
    lines = [f"static __always_inline u32 {name}(FILTER_ARGUMENTS)", "{"]
    lines.append(f"    u32 {', '.join(f'{variable} = 0' for variable in ('A', 'X', *memory))}, room;")
    lines.append("    u64 at;\n")
    for place, each in enumerate(program):
        if place in targets:
            lines.append(f"L{place}:")
        lines += (f"    {line};" for line in _statements(each, place + 1))
    return "\n".join([*lines, "}", ""])


def _jumps(each: Instruction) -> tuple[int, ...]:
    """How far an instruction may jump, counted from the next one."""
    if each.code & 7 != _JMP:
        return ()
    return (each.k,) if each.code & 0xF0 == _JA else (each.jt, each.jf)


def _uses_memory(each: Instruction) -> bool:
    class_ = each.code & 7
    return class_ in (_ST, _STX) or (class_ in (_LD, _LDX) and each.code & 0xE0 == _MEM)


def _word(each: Instruction) -> int:
    if each.k >= _MEMORY:
        raise InvalidArgs(f"filter: there is no word {each.k} of memory")
    return each.k


def _statements(each: Instruction, following: int) -> Iterator[str]:
    """What an instruction does, as C; following: the place of the next one."""
    class_ = each.code & 7
    if class_ in (_LD, _LDX):
        yield from _load(each, "A" if class_ == _LD else "X")
    elif class_ in (_ST, _STX):
        yield f"M{_word(each)} = {'A' if class_ == _ST else 'X'}"
    elif class_ == _ALU:
        yield from _calculate(each)
    elif class_ == _JMP:
        yield from _jump(each, following)
    elif class_ == _RET:
        yield f"return {'A' if each.code & 0x18 == _RETURN_A else f'{each.k:#x}'}"
    else:
        yield "A = X" if each.code & 0xF8 == _TXA else "X = A"


def _load(each: Instruction, target: str) -> Iterator[str]:
    mode, size = each.code & 0xE0, each.code & 0x18
    if mode == _IMM:
        yield f"{target} = {each.k:#x}"
    elif mode == _MEM:
        yield f"{target} = M{_word(each)}"
    elif mode == _LEN:
        yield f"{target} = length"
    elif mode == _MSH:  # the length of an IPv4 header
        yield _read("X", _BYTE, each.k)
        yield "X = (X & 15) << 2"
    elif mode not in (_ABS, _IND) or size not in _SIZES:
        raise InvalidArgs(f"filter: an instruction that is not known ({each.code:#x})")
    elif mode == _IND:
        unit, length = _SIZES[size]
        yield f"FILTER_SEEK({target}, {unit}, {length}, (u64)X + {each.k}U)"
    elif each.k >= _BEYOND_FRAMES:
        raise InvalidArgs(
            "filter: inbound, outbound and ifindex are no part of a filter here: "
            "there are options for direction and interface"
        )
    else:
        yield _read(target, size, each.k)


def _read(target: str, size: int, at: int) -> str:
    """A number at a constant place."""
    unit, length = _SIZES[size]
    return f"FILTER_{'READ' if at + length <= HEAD else 'SEEK'}({target}, {unit}, {length}, {at})"


def _calculate(each: Instruction) -> Iterator[str]:
    operation, by_index = each.code & 0xF0, bool(each.code & _X)
    operand = "X" if by_index else f"{each.k:#x}U"
    if operation == _NEG:
        yield "A = -A"
    elif operation in _SHIFTS:
        yield f"A = {operand} < 32 ? A {_SHIFTS[operation]} ({operand} & 31) : 0"
    elif operation not in _OPERATORS:
        raise InvalidArgs(f"filter: an instruction that is not known ({each.code:#x})")
    else:
        if operation in _DIVISIONS:
            yield f"if (!{operand}) return 0"
        yield f"A {_OPERATORS[operation]}= {operand}"


def _jump(each: Instruction, following: int) -> Iterator[str]:
    operation = each.code & 0xF0
    if operation == _JA:
        yield f"goto L{following + each.k}"
        return
    if operation not in _COMPARISONS:
        raise InvalidArgs(f"filter: an instruction that is not known ({each.code:#x})")
    operand = "X" if each.code & _X else f"{each.k:#x}U"
    yield f"if (A {_COMPARISONS[operation]} {operand}) goto L{following + each.jt}"
    if each.jf:
        yield f"goto L{following + each.jf}"
