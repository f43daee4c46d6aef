"""What the running kernel's type information (BTF) tells, so that no kernel headers are needed."""

from __future__ import annotations

import struct
from ctypes import c_void_p, string_at

from netmond.errors import KernelError
from netmond.kernel.libbpf import load_btf

# include/uapi/linux/btf.h
_KIND_STRUCT = 4
_KIND_UNION = 5
_KIND_FUNC = 12
_TYPE = struct.Struct("=III")  # struct btf_type: name_off, info, size or type
_MEMBER = struct.Struct("=III")  # struct btf_member: name_off, type, offset


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

    def offset(self, structure: str, member: str) -> int:
        """Bytes from the start of a structure to a member, also one of an anonymous part of it.

        KernelError: no such member.
        """
        found = self._library.btf__find_by_name_kind(self._handle, structure.encode(), _KIND_STRUCT)
        bits = self._find(found, member.encode()) if found > 0 else None
        if bits is None:
            raise KernelError(f"the kernel's BTF has no {structure}.{member}")
        return bits // 8

    def _find(self, type_id: int, member: bytes) -> int | None:
        """Bits to a member, None: it is not there."""
        at = self._library.btf__type_by_id(self._handle, type_id)
        _, info, _ = _TYPE.unpack(string_at(at, _TYPE.size))
        if info >> 24 & 0x1F not in (_KIND_STRUCT, _KIND_UNION):
            return None
        for index in range(info & 0xFFFF):
            where = at + _TYPE.size + index * _MEMBER.size
            name_at, inner, offset = _MEMBER.unpack(string_at(where, _MEMBER.size))
            name = string_at(self._library.btf__name_by_offset(self._handle, name_at))
            if name == member:
                return int(offset & 0xFFFFFF)
            deeper = None if name else self._find(inner, member)
            if deeper is not None:
                return int(offset & 0xFFFFFF) + deeper
        return None
