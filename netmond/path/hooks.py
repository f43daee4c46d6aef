"""Finds a hook for each stage by trying: the first that the kernel takes is used, the others say why not.

Everything hangs on descriptors of this process: programs are gone when it ends, however it does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from socket import AF_INET, AF_INET6, IPPROTO_UDP

import numpy as np

from netmond.errors import KernelError, NetmondError
from netmond.kernel import libbpf, syscalls, wire
from netmond.kernel.btf import Btf
from netmond.kernel.cgroups import find_cgroup2
from netmond.kernel.variants import CONTEXT, variant
from netmond.path import hook_kinds
from netmond.path.hook_kinds import Hook
from netmond.path.stages import Stage

# include/uapi/linux/bpf.h: enum bpf_prog_type
_PROGRAM_TYPES = {
    hook_kinds.KPROBE: 2,
    hook_kinds.CGROUP: 8,
    hook_kinds.TRACEPOINT: 26,
    hook_kinds.FENTRY: 26,
    hook_kinds.NETFILTER: 32,
}
#: How programs may read what they are handed
_TRAITS = {
    hook_kinds.TRACEPOINT: wire.PATH_TYPED,
    hook_kinds.FENTRY: wire.PATH_TYPED,
    hook_kinds.NETFILTER: wire.PATH_TYPED,
    hook_kinds.CGROUP: wire.PATH_CONTEXT,
}
_TRACE_RAW_TP, _TRACE_FENTRY, _NETFILTER = 23, 24, 45  # enum bpf_attach_type
_GO_ON = 1  # NF_ACCEPT, and what a program at a cgroup answers

#: Where a function finds its arguments: members of struct pt_regs by machine, else places in an array.
_REGISTERS = (("di", "si", "dx", "cx"), ("regs",))
_WORD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What became of a stage. state: on; replaced (`reason` says what is seen instead); off (and why).

    `traits`: of the hook, wire.PATH_OUT and others. `tried`: hooks that were refused, each with the reason.
    """

    stage: Stage
    hook: str | None = None
    state: str = "off"
    reason: str = ""
    traits: int = 0
    tried: tuple[str, ...] = ()


class Hooks:
    """Attaches variants of one function. close() detaches all of them."""

    def __init__(self, code: bytes, btf: Btf, shared: int) -> None:
        """code: path() of bpf/path.c, with descriptors of its maps. shared: that map's."""
        self._code = code
        self._btf = btf
        self._shared = shared
        self._places: dict[str, int] = {}  # of hooks in `shared`
        self._held: list[int] = []

    def resolve(self, number: int, stage: Stage, hooks: Iterable[Hook]) -> Resolution:
        """Tries hooks of a stage in turn."""
        tried = []
        for hook in hooks:
            try:
                self._attach(number, stage, hook)
            except NetmondError as error:
                tried.append(f"{hook}: {error}")
            else:
                state = "replaced" if hook.instead else "on"
                return Resolution(
                    stage=stage,
                    hook=str(hook),
                    state=state,
                    reason=hook.instead,
                    traits=hook.traits,
                    tried=tuple(tried),
                )
        return Resolution(stage=stage, reason="no hook for it in this kernel", tried=tuple(tried))

    def close(self) -> None:
        """Takes everything off; may be called again."""
        while self._held:
            with suppress(OSError):
                os.close(self._held.pop())

    def _attach(self, number: int, stage: Stage, hook: Hook) -> None:
        if not hook.shared:
            self._load(hook, self._constants(number, stage, hook), stage.family)
            return
        name = str(hook)
        if name not in self._places:
            place = len(self._places) * wire.PATH_SHARED_STAGES
            self._load(hook, self._constants(place, replace(stage, family=0), replace(hook, protocol=0)))
            self._places[name] = place
        families = (stage.family,) if stage.family else (AF_INET, AF_INET6)
        for family in families:
            key = self._places[name] + 2 * (hook.protocol == IPPROTO_UDP) + (family == AF_INET6)
            libbpf.map_update(self._shared, np.array([key], np.uint32), np.array([number + 1], np.uint32))

    def _load(self, hook: Hook, constants: Sequence[int], family: int = 0) -> None:
        function, attach_type = 0, 0
        if hook.kind == hook_kinds.FENTRY:
            function, attach_type = self._btf.function(hook.target), _TRACE_FENTRY
        elif hook.kind == hook_kinds.TRACEPOINT:
            function, attach_type = self._btf.tracepoint(hook.target), _TRACE_RAW_TP
        elif hook.kind == hook_kinds.NETFILTER:
            attach_type = _NETFILTER
        elif hook.kind == hook_kinds.CGROUP:
            attach_type = hook.place
        code = variant(self._code, constants, self._arguments(hook))
        kind = _PROGRAM_TYPES[hook.kind]
        try:
            program = libbpf.load_program(kind, "path", code, attach_type=attach_type, function=function)
        except KernelError as error:
            # Those of other kinds are loaded: it is not for want of a capability.
            refused = hook.kind == hook_kinds.FENTRY and str(error).startswith("not permitted")
            raise KernelError("this kernel refuses such programs" if refused else str(error)) from error
        try:
            self._held.append(self._link(program, family, hook))
        finally:
            os.close(program)

    @staticmethod
    def _constants(number: int, stage: Stage, hook: Hook) -> list[int]:
        values = {
            "stage": number,
            "event": stage.event,
            "traits": hook.traits | _TRAITS.get(hook.kind, 0) | wire.PATH_SHARED * hook.shared,
            "family": stage.family,
            "protocol": hook.protocol,
            "result": _GO_ON if hook.kind in (hook_kinds.CGROUP, hook_kinds.NETFILTER) else 0,
        }
        return [values[name] for name in wire.PATH_VARIANT]

    def _arguments(self, hook: Hook) -> dict[int, int]:
        """Offsets in the program's context by number of the argument."""
        known = len(wire.PATH_HANDED)
        if hook.kind == hook_kinds.TRACEPOINT:
            known = self._btf.tracepoint_arguments(hook.target)
        places = self._registers() if hook.kind == hook_kinds.KPROBE else range(0, known * _WORD, _WORD)
        return {
            wire.PATH_HANDED.index(name): CONTEXT if place == CONTEXT else places[place]
            for name, place in hook.arguments.items()
            if place < len(places)
        }

    def _registers(self) -> Sequence[int]:
        for names in _REGISTERS:
            with suppress(KernelError):
                found = [self._btf.offset("pt_regs", name) for name in names]
                return found if len(found) > 1 else [found[0] + _WORD * place for place in range(_WORD)]
        raise KernelError("not known where this machine has a function's arguments")

    @staticmethod
    def _link(program: int, family: int, hook: Hook) -> int:
        if hook.kind in (hook_kinds.TRACEPOINT, hook_kinds.FENTRY):
            return libbpf.open_raw_tracepoint(program)
        if hook.kind == hook_kinds.KPROBE:
            return syscalls.attach_kprobe(program, hook.target)
        if hook.kind == hook_kinds.CGROUP:
            directory = os.open(find_cgroup2(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return libbpf.create_link(program, directory, hook.place)
            finally:
                os.close(directory)
        return syscalls.link_netfilter(program, family, hook.place, last=hook.last)
