"""What is mounted where, as this process sees it: proc_pid_mountinfo(5)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

#: Space, tab, newline and backslash.
_ESCAPE = re.compile(r"\\([0-7]{3})")


def mounts(mountinfo: str | None = None) -> Iterator[tuple[Path, str]]:
    """Mount points and types of file systems, a later one covers an earlier one at the same place.

    mountinfo: the file's text, for tests.
    """
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), before.split(" ")[4])
        yield Path(point), after.split(" ", 1)[0]


def file_system(directory: Path) -> str:
    """The type of the file system that a directory is in."""
    wanted = directory.resolve()
    found = [(point, kind) for point, kind in mounts() if wanted.is_relative_to(point)]
    return max(enumerate(found), key=lambda each: (len(each[1][0].parts), each[0]))[1][1] if found else ""
