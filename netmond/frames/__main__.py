"""The worker of a capture as a program: ``python3 -m netmond.frames DESCRIPTOR``, see sessions/runner.py."""

from __future__ import annotations

import sys

from netmond.sessions import runner


def _job() -> runner.Job:
    from netmond.frames.worker import CaptureJob

    return CaptureJob()


if __name__ == "__main__":
    sys.exit(runner.main(_job))
