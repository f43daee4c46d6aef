"""What one daemon leaves to the next: programs that go on counting, and how far they are accounted for.

A unit's maps, programs and links are pinned, and after each tick a checkpoint says what has been accounted
for. The next daemon goes on with the same build, or puts another build in its place, program by program in
the links that are there, and then settles: it adds what the former build counted since the checkpoint. At
every moment the checkpoint names all the builds that may have counted something, so whenever the daemon is
killed nothing is lost, and nothing is counted twice.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import subprocess
import time
from collections.abc import Mapping
from ctypes import CDLL
from pathlib import Path
from typing import Any

from netmond import checkpoint
from netmond.checkpoint import Arrays, Checkpoint, Encoded
from netmond.errors import AlreadyExists, KernelError, NetmondError
from netmond.kernel import links, taps
from netmond.kernel.compile import Compilation, Loaded
from netmond.kernel.devices import devices
from netmond.kernel.former import Former
from netmond.kernel.pins import Generation, Links, is_bpffs
from netmond.kernel.programs import UNITS
from netmond.kernel.unit import Unit

log = logging.getLogger(__name__)

NEVER, RESTART, ALWAYS = "never", "restart", "always"

#: In the environment: the name of our systemd unit.
UNIT_VARIABLE = "NETMOND_UNIT"

#: What the unit shows its daemon as /run/netmond/bpf.
PINS_OF_UNIT = Path("/sys/fs/bpf/netmond")

_OWN, _TOTALS = "own.", "totals."

_MEMBARRIER = 324 if os.uname().machine == "x86_64" else 283  # asm-generic/unistd.h
_MEMBARRIER_CMD_GLOBAL = 1
_GRACE = 0.05  # seconds


class RunDirectory:
    """The directory of what lives from one start to the next, as long as the machine runs. One daemon's."""

    def __init__(self, path: Path, *, keep: str) -> None:
        """keep: NEVER, RESTART or ALWAYS. AlreadyExists: another daemon uses it."""
        self.path = path
        self.reason = ""  #: why nothing is left to the next daemon
        self.pins: Path | None = path / "bpf"  #: where an earlier one may have left something
        self._lock: int | None = None
        try:
            self._lock = lock(path)
        except OSError as error:
            self._cannot(f"cannot use {path}: {error.strerror}")
        if not is_bpffs(path / "bpf"):
            self._cannot(f"{path / 'bpf'} is no bpffs, see netmond(8), Restarting")
        if keep == NEVER:
            self.reason = "switched off by [daemon] keep_counting"

    def abandon(self, unit: str) -> None:
        """Ends what an earlier daemon left of a unit that this one does without."""
        if self.pins is not None:
            _abandon(self.pins, unit)
            _checkpoint(self.path, unit).unlink(missing_ok=True)

    def _cannot(self, reason: str) -> None:
        self.pins = None
        self.reason = f"counting ends with the daemon: {reason}"


class Handover:
    """One unit's way from earlier daemons to this one, and on to the next."""

    def __init__(self, unit: Unit, directory: RunDirectory, boot: str) -> None:
        """Reads what was left, and starts the compiler if that is of another build."""
        self.unit = unit
        self._boot = boot
        self._root = directory.pins
        self.lasting = not directory.reason  #: whether this daemon leaves anything to the next
        self._file = _checkpoint(directory.path, unit.name)
        self._own: Generation | None = None
        self._compilation: Compilation | None = None
        self._about: dict[str, Any] = {}
        self._description = ""  # the same as JSON, see begin()
        self._fingerprint = ""
        self.reason = ""  #: why this unit leaves nothing, although others may
        self.failures = 0
        self.totals: Arrays | None = None  #: of all builds there were, as of the checkpoint
        self.arrays: Arrays | None = None  #: what to go on from; None: this build counts from zero
        self.former: list[Former] = []
        self.left: Mapping[str, Any] = {}  #: what commit() was told about the moment
        self._others: list[Generation] = []
        self.links = Links()  #: where programs are attached, see begin()
        self._alone = False  # no other build is left
        if self._root is not None:
            self._fingerprint = unit.fingerprint()
            self._look(self._root)
        if self._own is None:
            self._compilation = Compilation(unit)

    @property
    def busy(self) -> bool:
        """Whether commit() has anything to do."""
        return self.lasting or not self._alone

    def _look(self, root: Path) -> None:
        """Finds out what was left."""
        self._others = Generation.all(root, self.unit.name)
        try:
            found = checkpoint.read(self._file)
        except NetmondError as error:
            log.warning("%s: counting goes on from what was saved on the disk", error)
            return
        if found is None or not self._boot or found.about["boot"] != self._boot:
            return
        self.left, self.totals = found.about["moment"], _under(_TOTALS, found.arrays)
        generations = {generation.id: generation for generation in self._others}
        for number, about in enumerate(found.about["generations"]):
            generation = generations.get(about["id"])
            last = number == len(found.about["generations"]) - 1
            arrays = _under(_OWN if last else f"former{number}.", found.arrays)
            if generation is None:
                log.warning("The counts of an earlier netmond since %s are gone", self._file)
            elif last and self.lasting and about["fingerprint"] == self._fingerprint:
                self._own, self._about, self.arrays = generation, about, arrays
                self._others.remove(generation)
            else:
                self.former.append(Former(generation, about, arrays))

    def load(self) -> Loaded:
        """Waits for the compiler, or takes up what is pinned. KernelError: what failed, in a line."""
        if self._own is not None:
            try:
                return self._own.load(self.unit, tuple(self._about["notes"]))
            except KernelError as error:
                log.warning("What an earlier netmond left cannot be used: %s", error)
                self._others.append(self._own)
                self._own = self.arrays = None
        return (self._compilation or Compilation(self.unit)).result()

    def begin(self, loaded: Loaded, layouts: Mapping[str, Any], totals: Arrays, arrays: Arrays) -> None:
        """Makes sure that from now on nothing is lost: then `links` may be attached.

        layouts: of the maps' records, for whoever replaces this build. totals and arrays: as commit() has
        them.
        """
        if self._root is not None and self.lasting:
            try:
                if self._own is None:
                    self._save(self._root, loaded, layouts)
                self._description = json.dumps(self._about)
                self._write(self.left, totals, arrays, self.former)
            except NetmondError as error:
                self.reason = f"counting ends with the daemon: {error}"
                self.lasting = False
                self._others += [self._own] if self._own else []
        self.links = Links(self._own if self.lasting else None, self._others)

    def _save(self, root: Path, loaded: Loaded, layouts: Mapping[str, Any]) -> None:
        self._own = Generation.save(root, self.unit, self._fingerprint, loaded)
        self._about = {
            "id": self._own.id,
            "fingerprint": self._fingerprint,
            "defines": self.unit.defines,
            "notes": loaded.notes,
            "layouts": layouts,
        }

    def commit(self, moment: Mapping[str, Any], totals: Arrays, arrays: Arrays) -> bool:
        """Keeps what has been accounted for; False: that failed, and what was kept before still is.

        The first time, when everything is attached and `former` is settled, it also ends the other builds.
        moment: JSON, for `left`. totals: of all builds there were; arrays: what goes with this one's maps.
        """
        try:
            if self.lasting:
                self._write(moment, totals, arrays, [])
        except NetmondError as error:
            self.failures += 1
            if self.failures == 1:
                log.warning("%s; a restart now would go on from an older one, and no slot is reused", error)
            return False
        if not self._alone:
            self.links.sweep()
            for generation in self._others:
                generation.remove()
            self._others, self.former, self._alone = [], [], True
            self.totals = self.arrays = None  # megabytes that nobody goes on from any more
            if not self.lasting:
                self._file.unlink(missing_ok=True)
        return True

    def _write(
        self, moment: Mapping[str, Any], totals: Arrays, arrays: Arrays, former: list[Former]
    ) -> None:
        generations = [*(json.dumps(each.about) for each in former), self._description]
        about = {
            "boot": self._boot,
            "moment": moment,
            "generations": Encoded(f"[{', '.join(generations)}]"),
        }
        kept = {f"{_TOTALS}{name}": array for name, array in totals.items()}
        for number, each in enumerate(former):
            kept |= {f"former{number}.{name}": array for name, array in each.arrays.items()}
        kept |= {f"{_OWN}{name}": array for name, array in arrays.items()}
        checkpoint.write(self._file, Checkpoint(about, kept))

    def end(self) -> None:
        """Leaves nothing to the next daemon. The links are to be closed already."""
        for generation in (*self._others, *([self._own] if self._own else [])):
            generation.remove()
        self._file.unlink(missing_ok=True)


def wait_for_programs() -> None:
    """Returns when every run of a program that was replaced before is over."""
    if CDLL(None, use_errno=True).syscall(_MEMBARRIER, _MEMBARRIER_CMD_GLOBAL, 0, 0) < 0:
        time.sleep(_GRACE)  # with nohz_full= there is no such call; a program takes microseconds


def lock(directory: Path) -> int:
    """Makes a run directory ours until we end. OSError; AlreadyExists: it is another daemon's."""
    # Itself, since a file in it could be another user's: `netmond --detach` is root's.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AlreadyExists(f"another netmond uses {directory}: stop it first") from None
    return descriptor


def was_stopped(unit: str, result: str) -> bool:
    """Whether a unit that has just ended stays so: it was stopped, or ended in order and nobody restarts it.

    result: how it ended, $SERVICE_RESULT of systemd.exec(5).
    """
    try:
        said = subprocess.run(
            ["systemctl", "--no-legend", "--no-pager", "list-jobs", unit],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return True
    jobs = {job.split()[2] for job in said.splitlines() if job.split()[1:2] == [unit]}
    return "stop" in jobs if jobs else result == "success"


def detach(directory: Path) -> None:
    """Ends all that a daemon left behind, here and where the unit keeps it. AlreadyExists: it runs."""
    if directory.is_dir():
        lock(directory)
    for root in filter(is_bpffs, (directory / "bpf", PINS_OF_UNIT)):
        for name in UNITS:
            _abandon(root, name)
    for name in UNITS:
        _checkpoint(directory, name).unlink(missing_ok=True)
    links.remove_leftovers(devices())
    taps.remove_leftovers(devices())


def _abandon(root: Path, unit: str) -> None:
    for generation in Generation.all(root, unit):
        generation.remove()


def _checkpoint(directory: Path, unit: str) -> Path:
    return directory / f"{unit}.checkpoint"


def _under(prefix: str, arrays: Arrays) -> dict[str, Any]:
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
