"""The worker of a capture as on a kernel before 6.6."""

from __future__ import annotations

import sys

from netmond.frames.worker import CaptureJob
from netmond.sessions import runner
from tests.kernel import no_tcx  # noqa: F401

if __name__ == "__main__":
    sys.exit(runner.main(CaptureJob))
