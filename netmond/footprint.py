"""Keeps the daemon small: 45 MB with 10,000 flows is what it may have, and imports alone would take 44."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from threading import Lock
from types import ModuleType
from typing import Any

#: asyncio and hashlib load OpenSSL (4 MB), which nothing here uses; both do without it.
_ABSENT = ("ssl", "_ssl", "_hashlib")
#: numpy and the standard library import these (7 MB) for whoever may want them; nothing here does. Loaded at
#: first use.
_LAZY = (
    "numpy.random",
    "numpy.ma",
    "numpy.fft",
    "numpy.polynomial",
    "numpy.linalg._umath_linalg",  # and LAPACK
    "numpy.core._add_newdocs",  # the texts of help()
    "numpy.core._add_newdocs_scalars",
    "numpy.lib.scimath",
    "numpy.ctypeslib",
    "asyncio.sslproto",
    "bz2",
    "lzma",
    "pickle",
)

#: It takes 0.8 MB to tell type checkers what annotations mean, which are never looked at here.
_ANNOTATIONS = "numpy.typing"

#: Outputs have threads: one of them takes a stand-in away, the others wait for the module.
_LOADING = Lock()

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
#: Bytes from which a freed block goes back to the system at once, at the price of page faults for the next.
_SMALL, _ROOMY = 128 << 10, 16 << 20
#: Flows from which the faults of a tick (40 ms at 100,000) weigh more than the memory.
_MANY_FLOWS = 32_768


class _Later(ModuleType):
    """Stands for a module, also one in C, until somebody wants anything of it."""

    def __getattr__(self, name: str) -> Any:
        with _LOADING:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
            elif name == "__path__":  # asked by the import of this stand-in
                raise AttributeError(name)
        return getattr(import_module(self.__name__), name)


class _Annotations(_Later):
    """Stands for numpy.typing, until somebody wants more of it than names for annotations."""

    def __getattr__(self, name: str) -> Any:
        import numpy as np

        if name in ("NDArray", "DTypeLike"):
            return np.ndarray
        if name.startswith("__"):  # asked by the import itself
            raise AttributeError(name)
        return super().__getattr__(name)


class _LazyFinder:
    """Finds modules of these names, each once: a stand-in that finds the module itself when it is asked."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._names:
            return None
        self._names.remove(name)
        return ModuleSpec(name, self)  # type: ignore[arg-type]  # importlib.abc would cost memory, too

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Later(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def stay_small(absent: Sequence[str] = _ABSENT) -> None:
    """Call before asyncio and numpy are imported and before any thread is started. absent: without these."""
    for module in absent:
        sys.modules[module] = None  # type: ignore[assignment]
    sys.meta_path.insert(0, _LazyFinder(_LAZY))
    sys.modules[_ANNOTATIONS] = _Annotations(_ANNOTATIONS)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # mallopt(3); threads share one arena
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _SMALL)
    libc.mallopt(_M_ARENA_MAX, 1)


def settle(flows: int) -> None:
    """Call after a tick: what is free goes back to the system (0.4 MB with 10,000 flows, 0.25 ms); with very
    many flows it is kept for the next one."""
    libc = ctypes.CDLL(None)
    if flows > _MANY_FLOWS:
        libc.mallopt(_M_MMAP_THRESHOLD, _ROOMY)
    else:
        libc.malloc_trim(0)


def keep_memory() -> None:
    """Freed blocks stay for the next use: for who makes and frees the same arrays all the time."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _ROOMY)
    libc.mallopt(_M_TRIM_THRESHOLD, _ROOMY)
