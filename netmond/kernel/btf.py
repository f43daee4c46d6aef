"""What the running kernel's type information (BTF) tells, so that no kernel headers are needed."""

from __future__ import annotations

import struct
from ctypes import c_void_p, string_at

from netmond.errors import KernelError
from netmond.kernel.libbpf import load_btf

# include/uapi/linux/btf.h
_KIND_STRUCT = 4
_KIND_UNION = 5
_KIND_ENUM = 6
_KIND_TYPEDEF = 8
_KIND_FUNC = 12
_TYPE = struct.Struct("=III")  # struct btf_type: name_off, info, size or type
_MEMBER = struct.Struct("=III")  # struct btf_member: name_off, type, offset
_ENUMERATOR = struct.Struct("=II")  # struct btf_enum: name_off, val


class Btf:
    """The kernel's types; a context manager, since the parsed form takes some megabytes."""

    def __init__(self) -> None:
        self._library, self._handle = load_btf()
        self._library.btf__type_by_id.restype = c_void_p
        self._library.btf__type_by_id.argtypes = [c_void_p, c_void_p]
        self._library.btf__name_by_offset.restype = c_void_p
        self._library.btf__name_by_offset.argtypes = [c_void_p, c_void_p]

    def __enter__(self) -> Btf:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.btf__free(self._handle)

    def has_function(self, name: str) -> bool:
        """Whether the kernel was built with a function (or helper) of that name."""
        return bool(self._library.btf__find_by_name_kind(self._handle, name.encode(), _KIND_FUNC) > 0)

    def function(self, name: str) -> int:
        """The number of a function. KernelError: the kernel has none of that name."""
        found = int(self._library.btf__find_by_name_kind(self._handle, name.encode(), _KIND_FUNC))
        if found <= 0:
            raise KernelError("this kernel has no such function")
        return found

    def tracepoint(self, name: str) -> int:
        """The number of a raw tracepoint. KernelError: the kernel has none of that name."""
        typedef = f"btf_trace_{name}".encode()
        found = int(self._library.btf__find_by_name_kind(self._handle, typedef, _KIND_TYPEDEF))
        if found <= 0:
            raise KernelError("this kernel has no such tracepoint")
        return found

    def tracepoint_arguments(self, name: str) -> int:
        """How many arguments a raw tracepoint hands over. KernelError: as above."""
        _, _, pointer = self._type(self.tracepoint(name))
        _, _, prototype = self._type(pointer)
        _, info, _ = self._type(prototype)
        return (info & 0xFFFF) - 1  # the first is the tracer's own

    def offset(self, structure: str, member: str) -> int:
        """Bytes from the start of a structure to a member, also one of an anonymous part of it.

        KernelError: no such member.
        """
        found = self._library.btf__find_by_name_kind(self._handle, structure.encode(), _KIND_STRUCT)
        bits = self._find(found, member) if found > 0 else None
        if bits is None:
            raise KernelError(f"the kernel's BTF has no {structure}.{member}")
        return bits // 8

    def enumerators(self, enumeration: str) -> dict[int, str]:
        """Names of an enumeration by value, as 32 bits without a sign; empty: the kernel has no such."""
        found = self._library.btf__find_by_name_kind(self._handle, enumeration.encode(), _KIND_ENUM)
        if found < 0:
            return {}
        at = self._library.btf__type_by_id(self._handle, found)
        _, info, _ = _TYPE.unpack(string_at(at, _TYPE.size))
        table = string_at(at + _TYPE.size, (info & 0xFFFF) * _ENUMERATOR.size)
        return {value: self._name(name_at) for name_at, value in _ENUMERATOR.iter_unpack(table)}

    def _type(self, type_id: int) -> tuple[int, int, int]:
        found = _TYPE.unpack(string_at(self._library.btf__type_by_id(self._handle, type_id), _TYPE.size))
        return found[0], found[1], found[2]

    def _name(self, offset: int) -> str:
        return string_at(self._library.btf__name_by_offset(self._handle, offset)).decode()

    def _find(self, type_id: int, member: str) -> int | None:
        """Bits to a member, None: it is not there."""
        at = self._library.btf__type_by_id(self._handle, type_id)
        _, info, _ = _TYPE.unpack(string_at(at, _TYPE.size))
        if info >> 24 & 0x1F not in (_KIND_STRUCT, _KIND_UNION):
            return None
        for index in range(info & 0xFFFF):
            where = at + _TYPE.size + index * _MEMBER.size
            name_at, inner, offset = _MEMBER.unpack(string_at(where, _MEMBER.size))
            name = self._name(name_at)
            if name == member:
                return int(offset & 0xFFFFFF)
            deeper = None if name else self._find(inner, member)
            if deeper is not None:
                return int(offset & 0xFFFFFF) + deeper
        return None
