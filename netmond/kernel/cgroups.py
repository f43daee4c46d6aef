"""The cgroup v2 hierarchy of this machine: where it is, and the paths behind cgroup ids."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from netmond.errors import Unavailable
from netmond.kernel.mounts import mounts


def find_cgroup2(mountinfo: str | None = None) -> Path:
    """The mount point of cgroup2, wherever it is (unified, or /sys/fs/cgroup/unified beside v1).

    mountinfo: text in the format of proc_pid_mountinfo(5), for tests. Unavailable: there is none.
    """
    for point, kind in mounts(mountinfo):
        if kind == "cgroup2":
            return point
    raise Unavailable(
        "no cgroup2 hierarchy is mounted: boot with systemd, or mount -t cgroup2 none /sys/fs/cgroup/unified"
    )


#: Paths from which those of cgroups long gone are forgotten.
_REMEMBERED = 1 << 16


class CgroupPaths:
    """Paths below the hierarchy by cgroup id, which is the inode number of the directory.

    A path stays known after its cgroup is gone, so that what it counted keeps its name.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._paths: dict[int, str] = {}

    def look_up(self, ids: Iterable[int]) -> dict[int, str]:
        """The path of each id, ``/`` for the root; an id that cannot be found (any more) is left out.

        Walks the hierarchy once if one of them is new: a few ms for hundreds of cgroups.
        """
        wanted = set(ids)
        if not wanted <= self._paths.keys():
            if len(self._paths) > _REMEMBERED:
                self._paths.clear()
            self._walk()
        return {id_: self._paths[id_] for id_ in wanted if id_ in self._paths}

    def _walk(self) -> None:
        root = os.fspath(self._root)
        pending = [(root, "/")]
        while pending:
            directory, path = pending.pop()
            try:
                self._paths[os.stat(directory).st_ino] = path
                with os.scandir(directory) as entries:
                    names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            except OSError:  # gone since it was listed
                continue
            pending += [(f"{directory}/{name}", f"{path.rstrip('/')}/{name}") for name in names]
