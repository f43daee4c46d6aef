"""What outlives the daemon: maps, programs and links with names in a bpffs.

A *generation* is one build of a unit: a directory ``<unit>-<fingerprint>-<id>`` below the root with
``maps/``, ``programs/`` and ``links/``. The fingerprint tells builds apart that cannot share maps, the id is
the kernel's number of the first map, which no other generation ever has. Whatever is called otherwise
belongs to somebody else.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from netmond.errors import KernelError
from netmond.kernel import libbpf
from netmond.kernel.compile import Loaded
from netmond.kernel.mounts import file_system
from netmond.kernel.unit import Unit

_NAME = re.compile(r"(?P<unit>[a-z]+)-(?P<fingerprint>[0-9a-f]{12})-(?P<id>[0-9]+)")


def is_bpffs(directory: Path) -> bool:
    return directory.is_dir() and file_system(directory) == "bpf"


@dataclass(frozen=True, slots=True)
class Generation:
    """One build of a unit, pinned at `path`."""

    path: Path
    unit: str
    fingerprint: str
    id: int

    @staticmethod
    def all(root: Path, unit: str) -> list[Generation]:
        """Those of a unit that are pinned below `root`, in no order."""
        matches = ((entry, _NAME.fullmatch(entry.name)) for entry in root.iterdir())
        return [
            Generation(entry, unit, match["fingerprint"], int(match["id"]))
            for entry, match in matches
            if match and match["unit"] == unit
        ]

    @staticmethod
    def save(root: Path, unit: Unit, fingerprint: str, loaded: Loaded) -> Generation:
        """Pins what was just loaded. KernelError: it cannot be."""
        id_ = libbpf.map_id(loaded.maps[unit.maps[0]])
        path = root / f"{unit.name}-{fingerprint}-{id_}"
        try:
            for kind in ("maps", "programs", "links"):
                (path / kind).mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise KernelError(f"cannot make {path}: {error.strerror}") from error
        for kind, descriptors in (("maps", loaded.maps), ("programs", loaded.programs)):
            for name, descriptor in descriptors.items():
                libbpf.pin(descriptor, path / kind / name)
        return Generation(path, unit.name, fingerprint, id_)

    def load(self, unit: Unit, notes: tuple[str, ...]) -> Loaded:
        """Descriptors of what is pinned. KernelError: it is not complete."""
        optional = {program.name for program in unit.programs if program.loss}
        programs: dict[str, int] = {}
        maps: dict[str, int] = {}
        loaded = Loaded(programs=programs, maps=maps, notes=notes)
        try:
            for program in unit.programs:
                pinned = self.path / "programs" / program.name
                if program.name not in optional or pinned.exists():
                    programs[program.name] = libbpf.open_pin(pinned)
            for name in unit.maps:
                maps[name] = libbpf.open_pin(self.path / "maps" / name)
            for name in unit.extra.maps if unit.extra else ():
                if (pinned := self.path / "maps" / name).exists():
                    maps[name] = libbpf.open_pin(pinned)
        except KernelError:
            loaded.close()
            raise
        return loaded

    def remove(self) -> None:
        """Takes the names away: what has no other holder, ends."""
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass(slots=True)
class Link:
    """A program attached somewhere."""

    _descriptor: int
    _pinned: Path | None

    def close(self) -> None:
        """Detaches."""
        if self._pinned is not None:
            self._pinned.unlink(missing_ok=True)
        os.close(self._descriptor)


class Links:
    """Where a unit's links come from: an earlier daemon may have left them, so that no packet goes by."""

    def __init__(self, own: Generation | None = None, former: Sequence[Generation] = ()) -> None:
        """own: where links are pinned, None: they end with this process. former: generations that this one
        replaces."""
        self._own = own
        self._former = former
        self._taken: set[str] = set()

    def attach(self, name: str, program: int, create: Callable[[], int]) -> Link:
        """The link of that name, running `program`: one that is there, or a new one. KernelError.

        create: makes a link and returns its descriptor.
        """
        path = self._own.path / "links" / name if self._own else None
        self._taken.add(name)
        descriptor = _alive(path) if path else None
        if descriptor is None:
            descriptor = self._inherit(name, program)
            if descriptor is None:
                descriptor = create()
            if path:
                try:
                    libbpf.pin(descriptor, path)
                except KernelError:
                    os.close(descriptor)
                    raise
            self._drop_former(name)
        return Link(descriptor, path)

    def drop(self, name: str) -> None:
        """Ends a link that an earlier daemon left."""
        if self._own is not None:
            (self._own.path / "links" / name).unlink(missing_ok=True)
        self._drop_former(name)

    def sweep(self) -> None:
        """Ends all links that earlier daemons left and nobody has asked for."""
        if self._own is not None:
            for pinned in (self._own.path / "links").iterdir():
                if pinned.name not in self._taken:
                    pinned.unlink(missing_ok=True)
        for generation in self._former:
            with suppress(OSError):
                shutil.rmtree(generation.path / "links")

    def _inherit(self, name: str, program: int) -> int | None:
        """A former generation's link, with the program replaced in it."""
        for generation in self._former:
            descriptor = _alive(generation.path / "links" / name)
            if descriptor is not None:
                try:
                    libbpf.update_link(descriptor, program)
                except KernelError:  # its kind or place has changed
                    os.close(descriptor)
                else:
                    return descriptor
        return None

    def _drop_former(self, name: str) -> None:
        for generation in self._former:
            (generation.path / "links" / name).unlink(missing_ok=True)


def _alive(path: Path) -> int | None:
    """The link that is pinned there, None: there is none, or what it was attached to is gone."""
    if not path.exists():
        return None
    descriptor = libbpf.open_pin(path)
    if libbpf.link_target(descriptor):
        return descriptor
    os.close(descriptor)
    path.unlink(missing_ok=True)
    return None
