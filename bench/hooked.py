"""As a program (``python3 -m bench.hooked DESCRIPTOR``): netmond.path with programs that do nothing.

They are attached where the real ones would be: no filter in them could cost less.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from netmond.path import programs
from netmond.path.__main__ import job
from netmond.sessions import runner

_unit_of = programs.unit_of


def main() -> int:
    """Runs the worker, as ``python3 -m netmond.path`` does."""
    source = str(Path(__file__).with_name("hooked.c"))
    with patch.object(programs, "unit_of", lambda *given: replace(_unit_of(*given), source=source)):
        return runner.main(job)


if __name__ == "__main__":
    sys.exit(main())
