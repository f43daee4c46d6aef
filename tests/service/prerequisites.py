"""What running the service tests takes, on this host: programs, root, the packages under test."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path


def require_tools(tools: Iterable[str], target: str) -> None:
    """SystemExit unless we are root and all programs are there; `target` of make installs them."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if os.geteuid() != 0:
        sys.exit("needs root")
    if missing:
        sys.exit(f"needs {', '.join(missing)}: make {target} installs them")


def packages_in(directory: Path) -> list[Path]:
    """The Debian packages to be tested; SystemExit if there are none."""
    debs = sorted(directory.glob("*.deb"))
    if not debs:
        sys.exit(f"no packages in {directory}: run make deb")
    return debs
