"""Who processes are, asked from outside: the sandbox hides /proc of others, and reading it takes longer.

A BPF iterator walks all threads of the process namespace: 0.2 ms for 100 of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.errors import KernelError
from netmond.kernel import libbpf, wire
from netmond.kernel.compile import Compilation, Loaded
from netmond.kernel.programs import TASKS_PROGRAM, task_unit


class Tasks:
    """The iterator, compiled when it is used for the first time: half a second. Belongs to one thread."""

    def __init__(self) -> None:
        self._loaded: Loaded | None = None
        self._refusal: KernelError | None = None

    def read(self) -> NDArray[Any]:
        """All threads there are, as wire.TASK. KernelError: this kernel does not tell, in a line."""
        if self._refusal:
            raise self._refusal
        if self._loaded is None:
            try:
                self._loaded = Compilation(task_unit()).result()
            except KernelError as error:
                self._refusal = error
                raise
        output = libbpf.iterate(self._loaded.programs[TASKS_PROGRAM])
        if not output:
            raise KernelError("; ".join(self._loaded.notes))
        return np.frombuffer(output, wire.TASK)
