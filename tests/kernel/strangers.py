"""BPF programs of other people: they do nothing but be there, or they spoil a link."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from netmond.kernel import libbpf, programs
from tests.kernel.capture import entered
from tests.kernel.machine import Link, Namespace

# enum bpf_prog_type
SCHED_CLS, XDP = 3, 6
_TCX_NEXT, _TC_ACT_SHOT = -1, 2
_XDP_DROP, _XDP_PASS = 1, 2
# enum bpf_func_id
_PRANDOM, _VLAN_PUSH, _VLAN_POP = 7, 18, 19
_8021Q = 0x0081  # ETH_P_8021Q in network order

#: struct bpf_insn: code, registers (destination in the low half), offset, immediate value.
_Instruction = tuple[int, int, int, int]
_EXIT: _Instruction = (0x95, 0, 0, 0)


def _set(register: int, value: int) -> _Instruction:
    return 0xB7, register, 0, value


def _call(function: int) -> _Instruction:
    return 0x85, 0, 0, function


@contextmanager
def stranger(space: Namespace, device: str, kind: int, attach_type: int, verdict: int) -> Iterator[None]:
    """A program on a device that answers every packet with the same verdict."""
    with _program(space, device, kind, attach_type, [_set(0, verdict), _EXIT]):
        yield


@contextmanager
def loss(space: Namespace, device: str, *, one_in: int, seen: bool) -> Iterator[None]:
    """Drops packets that come in at random; seen: behind the place where a capture on the device sees them,
    or before it."""
    kind, attach_type = (SCHED_CLS, programs.TCX_INGRESS) if seen else (XDP, programs.XDP)
    keep, drop = (_TCX_NEXT, _TC_ACT_SHOT) if seen else (_XDP_PASS, _XDP_DROP)
    code = [
        _call(_PRANDOM),
        (0x97, 0, 0, one_in),  # r0 %= one_in
        (0x15, 0, 2, 0),  # if r0 == 0: skip two
        _set(0, keep),
        _EXIT,
        _set(0, drop),
        _EXIT,
    ]
    with _program(space, device, kind, attach_type, code):
        yield


@contextmanager
def vlan(link: Link, number: int) -> Iterator[None]:
    """Everything on the link carries an 802.1Q tag, and neither end's stack knows of it. (Programs do it,
    because not every kernel has VLAN devices.)"""
    push = [_set(2, _8021Q), _set(3, number), _call(_VLAN_PUSH), _set(0, _TCX_NEXT), _EXIT]
    pop = [_call(_VLAN_POP), _set(0, _TCX_NEXT), _EXIT]
    with ExitStack() as stack:
        for space, device in ((link.near, link.near_device), (link.far, link.far_device)):
            for attach_type, code in ((programs.TCX_EGRESS, push), (programs.TCX_INGRESS, pop)):
                stack.enter_context(_program(space, device, SCHED_CLS, attach_type, code))
        yield


@contextmanager
def _program(
    space: Namespace, device: str, kind: int, attach_type: int, code: Sequence[_Instruction]
) -> Iterator[None]:
    instructions = b"".join(struct.pack("=BBhi", *instruction) for instruction in code)
    library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    program = library.bpf_prog_load(kind, b"stranger", b"GPL", instructions, len(code), None)
    assert program >= 0, os.strerror(ctypes.get_errno())
    with entered(space):
        link = libbpf.create_link(program, space.index(device), attach_type)
    os.close(program)
    try:
        yield
    finally:
        os.close(link)
