"""A path session of a test: attached in a namespace, with all that it has seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.path.filters import Options
from netmond.path.programs import Path, load
from netmond.path.stages import STAGES
from tests.kernel.capture import entered
from tests.kernel.deadline import eventually
from tests.kernel.machine import Namespace

NUMBERS = {stage.name: number for number, stage in enumerate(STAGES)}


class Session:
    """Events are taken out of the ring when they are asked for; none is lost in between if there is room."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._taken: list[NDArray[Any]] = []

    def events(self) -> NDArray[Any]:
        """All of them, once no packet is under way."""

        def still() -> bool:
            before = self.path.counters()
            self._taken.append(self.path.ring.read(1 << 20).copy())
            self.path.ring.release()
            return bool((before == self.path.counters()).all())

        eventually(still, "no packet is under way")
        return np.concatenate(self._taken)

    def of(self, stage: str, **fields: Any) -> NDArray[Any]:
        """Events of a stage, whose fields have these values."""
        found = self.events()
        found = found[found["stage"] == NUMBERS[stage]]
        for name, value in fields.items():
            found = found[found[name] == value]
        return found

    def count(self, stage: str, what: str = "matched") -> int:
        """A counter of a stage."""
        return int(self.path.counters()[what][NUMBERS[stage]])


@contextmanager
def session(space: Namespace, **options: Any) -> Iterator[Session]:
    """Attached in a namespace, without a limit of the rate unless one is given."""
    options.setdefault("rate", 0)
    with entered(space):
        path = load(Options(**options))
    try:
        yield Session(path)
    finally:
        path.close()
