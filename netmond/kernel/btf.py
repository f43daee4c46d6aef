"""What the running kernel's type information (BTF) tells, so that no kernel headers are needed."""

from __future__ import annotations

import struct
from ctypes import c_void_p, string_at

from netmond.errors import KernelError
from netmond.kernel.libbpf import load_btf

# include/uapi/linux/btf.h
_KIND_STRUCT = 4
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
        """Bytes from the start of a structure to one of its own members; KernelError: no such member."""
        found = self._library.btf__find_by_name_kind(self._handle, structure.encode(), _KIND_STRUCT)
        if found > 0:
            at = self._library.btf__type_by_id(self._handle, found)
            _, info, _ = _TYPE.unpack(string_at(at, _TYPE.size))
            for index in range(info & 0xFFFF):
                where = at + _TYPE.size + index * _MEMBER.size
                name, _, offset = _MEMBER.unpack(string_at(where, _MEMBER.size))
                if string_at(self._library.btf__name_by_offset(self._handle, name)) == member.encode():
                    return int(offset & 0xFFFFFF) // 8
        raise KernelError(f"the kernel's BTF has no {structure}.{member}")
