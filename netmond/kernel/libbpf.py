"""The few functions of libbpf.so.1 that netmond calls, through ctypes, with errors as KernelError.

Documented in <bpf/bpf.h>, <bpf/libbpf.h> and bpf(2). Descriptors are plain ints owned by the caller.
"""

from __future__ import annotations

import ctypes
import errno
import os
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netmond.errors import KernelError
from netmond.kernel.verifier import last_words

#: Flag of create_link() for tcx: run before all others there
BPF_F_BEFORE = 1 << 3

XDP_FLAGS_SKB_MODE = 1 << 1
XDP_FLAGS_DRV_MODE = 1 << 2

#: enum bpf_tc_attach_point
TC_INGRESS = 1
TC_EGRESS = 2
_TC_F_REPLACE = 1

#: enum bpf_map_type
MAP_TYPE_RINGBUF = 27

_BPF_NOEXIST = 1

#: enum bpf_attach_type
TRACE_ITER = 28

_BPF_LINK_TYPE_CGROUP = 3

_PIECE = 1 << 15  # bytes of an iterator's output read at a time: what the kernel holds ready

_VERIFIER_LOG = 1 << 20  # bytes

_ENOTSUPP = 524  # of the kernel, not in errno.h


class _LinkCreateOpts(ctypes.Structure):
    _fields_ = (
        ("sz", c_size_t),
        ("flags", c_uint32),
        ("iter_info", c_void_p),
        ("iter_info_len", c_uint32),
        ("target_btf_id", c_uint32),
        ("bpf_cookie", ctypes.c_uint64),
        ("unused", ctypes.c_uint64 * 2),
    )


class _TcHook(ctypes.Structure):
    _fields_ = (
        ("sz", c_size_t),
        ("ifindex", c_int),
        ("attach_point", c_int),
        ("parent", c_uint32),
        ("unused", c_size_t),
    )


class _TcOpts(ctypes.Structure):
    _fields_ = (
        ("sz", c_size_t),
        ("prog_fd", c_int),
        ("flags", c_uint32),
        ("prog_id", c_uint32),
        ("handle", c_uint32),
        ("priority", c_uint32),
        ("unused", c_size_t),
    )


class _ProgInfo(ctypes.Structure):
    """The start of struct bpf_prog_info."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("lengths", c_uint32 * 2),
        ("pointers", ctypes.c_uint64 * 2),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", c_uint32),
        ("nr_map_ids", c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * 16),
    )


class _LoadOpts(ctypes.Structure):
    """The start of struct bpf_prog_load_opts."""

    _fields_ = (
        ("sz", c_size_t),
        ("attempts", c_int),
        ("expected_attach_type", c_int),
        ("prog_btf_fd", c_uint32),
        ("prog_flags", c_uint32),
        ("prog_ifindex", c_uint32),
        ("kern_version", c_uint32),
        ("attach_btf_id", c_uint32),
        ("attach_prog_fd", c_uint32),
        ("attach_btf_obj_fd", c_uint32),
        ("fd_array", c_void_p),
        ("func_info", c_void_p),
        ("func_info_cnt", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("line_info", c_void_p),
        ("line_info_cnt", c_uint32),
        ("line_info_rec_size", c_uint32),
        ("log_level", c_uint32),
        ("log_size", c_uint32),
        ("log_buf", c_char_p),
    )


class _LinkInfo(ctypes.Structure):
    """The start of struct bpf_link_info: cgroup.cgroup_id, or {xdp,tcx}.ifindex in its low half."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("prog_id", c_uint32),
        ("padding", c_uint32),
        ("target", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 8),
    )


class _MapInfo(ctypes.Structure):
    """The start of struct bpf_map_info."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("map_flags", c_uint32),
        ("rest", ctypes.c_uint64 * 14),
    )


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise KernelError("libbpf.so.1 is missing: install the package libbpf1") from error
    library.libbpf_set_print(None)  # its messages come as exceptions from here
    library.bpf_link_create.argtypes = [c_int, c_int, c_int, c_void_p]
    library.bpf_prog_load.argtypes = [c_int, c_char_p, c_char_p, c_char_p, c_size_t, c_void_p]
    library.bpf_raw_tracepoint_open.argtypes = [c_char_p, c_int]
    library.bpf_map_create.argtypes = [c_int, c_char_p, c_uint32, c_uint32, c_uint32, c_void_p]
    library.bpf_map_update_elem.argtypes = [c_int, c_void_p, c_void_p, ctypes.c_uint64]
    library.bpf_map_lookup_elem.argtypes = [c_int, c_void_p, c_void_p]
    library.bpf_map_get_next_key.argtypes = [c_int, c_void_p, c_void_p]
    library.bpf_map_delete_elem.argtypes = [c_int, c_void_p]
    library.bpf_map_lookup_and_delete_elem.argtypes = [c_int, c_void_p, c_void_p]
    library.bpf_map_lookup_batch.argtypes = [c_int, *[c_void_p] * 4, POINTER(c_uint32), c_void_p]
    library.bpf_obj_get_info_by_fd.argtypes = [c_int, c_void_p, POINTER(c_uint32)]
    library.bpf_tc_hook_create.argtypes = [POINTER(_TcHook)]
    library.bpf_tc_hook_destroy.argtypes = [POINTER(_TcHook)]
    for name in ("attach", "detach", "query"):
        getattr(library, f"bpf_tc_{name}").argtypes = [POINTER(_TcHook), POINTER(_TcOpts)]
    library.bpf_prog_get_fd_by_id.argtypes = [c_uint32]
    library.bpf_obj_pin.argtypes = [c_int, c_char_p]
    library.bpf_obj_get.argtypes = [c_char_p]
    library.bpf_link_update.argtypes = [c_int, c_int, c_void_p]
    library.btf__load_vmlinux_btf.restype = c_void_p
    library.btf__free.argtypes = [c_void_p]
    library.btf__find_by_name_kind.argtypes = [c_void_p, c_char_p, c_uint32]
    return library


def load_btf() -> tuple[ctypes.CDLL, int]:
    """The library and a handle on the running kernel's type information; KernelError: there is none."""
    library = _library()
    handle = library.btf__load_vmlinux_btf()
    if not handle:
        raise KernelError("the kernel has no BTF (/sys/kernel/btf/vmlinux): it needs CONFIG_DEBUG_INFO_BTF")
    return library, handle


def _check(result: int, doing: str) -> int:
    if result >= 0:
        return result
    code = ctypes.get_errno() or -result
    raise KernelError(f"{doing}: {explain(code)}")


def explain(code: int) -> str:
    """One line for an errno, with the remedy where there is a usual one."""
    if code in (errno.EPERM, errno.EACCES):
        return "not permitted: netmond needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root)"
    if code == _ENOTSUPP:
        return "not supported by this kernel or driver"
    return os.strerror(code)


# -- loading -----------------------------------------------------------------------------------------


def load_program(kind: int, name: str, code: bytes, *, attach_type: int = 0, function: int = 0) -> int:
    """Loads instructions as a program and returns its descriptor.

    kind: enum bpf_prog_type; function: of tracing programs the BTF number of the function or tracepoint.
    KernelError: with the verifier's last words, if it has any.
    """
    options = _LoadOpts(
        sz=ctypes.sizeof(_LoadOpts), expected_attach_type=attach_type, attach_btf_id=function
    )
    load = partial(
        _library().bpf_prog_load, kind, name.encode(), b"GPL", code, len(code) // 8, byref(options)
    )
    descriptor = int(load())
    if descriptor >= 0:
        return descriptor
    said = explain(ctypes.get_errno() or -descriptor)
    log = ctypes.create_string_buffer(_VERIFIER_LOG)
    options.log_level, options.log_size = 1, len(log)
    options.log_buf = ctypes.cast(log, c_char_p)
    descriptor = int(load())
    if descriptor >= 0:
        return descriptor
    words = last_words(log.value.decode(errors="replace"))
    raise KernelError(f"{said} ({words})" if words else said)


# -- attaching ---------------------------------------------------------------------------------------


def create_link(program: int, target: int, attach_type: int, flags: int = 0) -> int:
    """Attaches a program by bpf_link and returns the link's descriptor; closing it detaches.

    target: descriptor of a cgroup, or the index of an interface. flags: XDP_FLAGS_*, BPF_F_BEFORE.
    """
    options = _LinkCreateOpts(sz=_LinkCreateOpts.unused.offset, flags=flags)
    pointer = byref(options) if flags else None
    return _check(_library().bpf_link_create(program, target, attach_type, pointer), "cannot attach")


def open_raw_tracepoint(program: int) -> int:
    """Attaches a tracing program to what it was loaded for; returns a link."""
    return _check(_library().bpf_raw_tracepoint_open(None, program), "cannot attach")


def update_link(link: int, program: int) -> None:
    """Puts a program in the place of a link's: every packet meets either the old or the new one."""
    _check(_library().bpf_link_update(link, program, None), "cannot replace a program")


def link_target(link: int) -> int:
    """What a link of a cgroup or an interface is attached to: cgroup id or ifindex; 0: it is gone."""
    info, size = _LinkInfo(), c_uint32(ctypes.sizeof(_LinkInfo))
    _check(_library().bpf_obj_get_info_by_fd(link, byref(info), byref(size)), "cannot inspect a link")
    is_cgroup = info.type == _BPF_LINK_TYPE_CGROUP
    return int(info.target) if is_cgroup else int(info.target) & 0xFFFFFFFF


def iterate(program: int, map_: int | None = None) -> bytes:
    """Runs a BPF iterator once; returns what its program wrote. map_: the one whose elements it is for."""
    options = _LinkCreateOpts(sz=_LinkCreateOpts.unused.offset)
    if map_ is not None:
        info = (c_uint32 * 4)(map_)  # union bpf_iter_link_info, 16 bytes
        options.iter_info, options.iter_info_len = ctypes.addressof(info), ctypes.sizeof(info)
    made = _library().bpf_link_create(program, 0, TRACE_ITER, byref(options))
    link = _check(made, "cannot attach an iterator")
    try:
        pass_ = _check(_library().bpf_iter_create(link), "cannot start an iterator")
    finally:
        os.close(link)
    output = []
    with open(pass_, "rb", buffering=0) as file:
        # None: a million objects went by without a word, there may be more (BPF_ITER_MAX_OBJECTS).
        while (piece := file.read(_PIECE)) != b"":
            output.append(piece or b"")
    return b"".join(output)


def _tc_hook(ifindex: int, direction: int) -> _TcHook:
    return _TcHook(sz=_TcHook.unused.offset, ifindex=ifindex, attach_point=direction)


def tc_attach(program: int, ifindex: int, direction: int, *, handle: int, priority: int) -> None:
    """Attaches to clsact, in the place of a program with the same handle and priority if there is one."""
    hook = _tc_hook(ifindex, direction)
    created = _library().bpf_tc_hook_create(byref(hook))
    if created < 0 and created != -errno.EEXIST:
        _check(created, "cannot make the clsact queueing discipline")
    options = _TcOpts(
        sz=_TcOpts.unused.offset, prog_fd=program, flags=_TC_F_REPLACE, handle=handle, priority=priority
    )
    _check(_library().bpf_tc_attach(byref(hook), byref(options)), "cannot attach to tc")


def tc_query(ifindex: int, direction: int, *, handle: int, priority: int) -> int:
    """The id of the program attached there, 0: none."""
    options = _TcOpts(sz=_TcOpts.unused.offset, handle=handle, priority=priority)
    hook = _tc_hook(ifindex, direction)
    return 0 if _library().bpf_tc_query(byref(hook), byref(options)) < 0 else int(options.prog_id)


def tc_detach(ifindex: int, direction: int, *, handle: int, priority: int) -> None:
    """Detaches what is there; nothing there is not an error."""
    options = _TcOpts(sz=_TcOpts.unused.offset, handle=handle, priority=priority)
    _library().bpf_tc_detach(byref(_tc_hook(ifindex, direction)), byref(options))


def program_name(program_id: int) -> str:
    """The name a loaded program was given (15 bytes at most), empty: it is gone."""
    library = _library()
    descriptor = library.bpf_prog_get_fd_by_id(program_id)
    if descriptor < 0:
        return ""
    try:
        info, size = _ProgInfo(), c_uint32(ctypes.sizeof(_ProgInfo))
        _check(
            library.bpf_obj_get_info_by_fd(descriptor, byref(info), byref(size)), "cannot inspect a program"
        )
        return str(info.name.decode(errors="replace"))
    finally:
        os.close(descriptor)


# -- pins: names in a bpffs that keep an object alive ---------------------------------------------------


def pin(descriptor: int, path: Path) -> None:
    """Gives a map, program or link a name in a bpffs."""
    _check(_library().bpf_obj_pin(descriptor, os.fsencode(path)), f"cannot pin {path}")


def open_pin(path: Path) -> int:
    """A descriptor of what is pinned there."""
    return _check(_library().bpf_obj_get(os.fsencode(path)), f"cannot open {path}")


# -- maps --------------------------------------------------------------------------------------------


def _pointer(array: NDArray[np.generic] | np.generic) -> c_void_p:
    return c_void_p(np.asarray(array).ctypes.data)


def map_create(kind: int, name: str, *, key_size: int, value_size: int, entries: int) -> int:
    """A new map; kind: MAP_TYPE_*. Sizes are those of bpf(2), zero where the kind has none."""
    made = _library().bpf_map_create(kind, name.encode(), key_size, value_size, entries, None)
    return _check(made, f"cannot make the map {name}")


def _map_info(map_: int) -> _MapInfo:
    info, size = _MapInfo(), c_uint32(ctypes.sizeof(_MapInfo))
    _check(_library().bpf_obj_get_info_by_fd(map_, byref(info), byref(size)), "cannot inspect a map")
    return info


def map_id(map_: int) -> int:
    """The number the kernel gave a map; no other gets it in this boot."""
    return int(_map_info(map_).id)


def map_capacity(map_: int) -> int:
    """How many entries a map has room for; of a ring buffer, how many bytes."""
    return int(_map_info(map_).max_entries)


def map_keys(map_: int, key: NDArray[np.generic]) -> list[bytes]:
    """The keys of a map that has no batch calls (tries). `key`: an array of one key, used as a buffer."""
    next_key = _library().bpf_map_get_next_key
    found: list[bytes] = []
    position = None
    while next_key(map_, position, _pointer(key)) >= 0:
        found.append(key.tobytes())
        position = _pointer(key)
    return found


def map_push(map_: int, values: NDArray[np.uint32]) -> None:
    """Pushes each value on a stack or queue; the last one is the first to be popped from a stack."""
    update = _library().bpf_map_update_elem
    word = c_uint32()
    pointer = byref(word)
    for value in values.tolist():
        word.value = value
        _check(update(map_, None, pointer, 0), "cannot give a slot back")


def map_lookup(map_: int, key: NDArray[np.generic], value: NDArray[np.generic]) -> bool:
    """Stores one entry's value, of a per-CPU map those of all possible CPUs; False: it is not there."""
    result = _library().bpf_map_lookup_elem(map_, _pointer(key), _pointer(value))
    if result < 0 and ctypes.get_errno() == errno.ENOENT:
        return False
    _check(result, "cannot read a map")
    return True


def map_update(map_: int, key: NDArray[np.generic], value: NDArray[np.generic]) -> None:
    """Inserts or replaces one entry. Both arrays hold one element of the map's own layout."""
    _check(_library().bpf_map_update_elem(map_, _pointer(key), _pointer(value), 0), "cannot write a map")


def map_insert(map_: int, key: NDArray[np.generic], value: NDArray[np.generic]) -> bool:
    """Inserts one entry; False: it is there already, and stays as it is."""
    result = _library().bpf_map_update_elem(map_, _pointer(key), _pointer(value), _BPF_NOEXIST)
    if result < 0 and ctypes.get_errno() == errno.EEXIST:
        return False
    _check(result, "cannot write a map")
    return True


def map_delete(map_: int, key: NDArray[np.generic]) -> bool:
    """Removes one entry; False: it was not there."""
    result = _library().bpf_map_delete_elem(map_, _pointer(key))
    if result < 0 and ctypes.get_errno() == errno.ENOENT:
        return False
    _check(result, "cannot delete from a map")
    return True


def map_take(map_: int, key: NDArray[np.generic], value: NDArray[np.generic]) -> bool:
    """Removes one entry and stores its final value, nothing counted in between; False: it was not there."""
    result = _library().bpf_map_lookup_and_delete_elem(map_, _pointer(key), _pointer(value))
    if result < 0 and ctypes.get_errno() == errno.ENOENT:
        return False
    _check(result, "cannot take from a map")
    return True


def map_read(map_: int, keys: NDArray[np.generic], values: NDArray[np.generic]) -> int:
    """Reads a whole hash into arrays of its capacity and returns the number of entries."""
    read = _library().bpf_map_lookup_batch
    cursor = np.zeros(1, np.uint64)  # the kernel's, a bucket number
    done, position = 0, None
    while done < len(keys):
        count = c_uint32(len(keys) - done)
        result = read(
            map_,
            position,
            _pointer(cursor),
            _pointer(keys[done:]),
            _pointer(values[done:]),
            byref(count),
            None,
        )
        code = ctypes.get_errno() if result < 0 else 0
        if result < 0 and code != errno.ENOENT:
            _check(result, "cannot read a map")
        done += count.value
        if code == errno.ENOENT:  # that was the end
            break
        position = _pointer(cursor)
    return done
