"""The worker as a program: ``python3 -m netmond.path DESCRIPTOR``, that of the socket to the daemon."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from netmond.sessions import runner

if TYPE_CHECKING:
    from netmond.path.worker import PathJob


def job() -> PathJob:
    from netmond.path.worker import PathJob

    return PathJob()


if __name__ == "__main__":
    sys.exit(runner.main(job))
