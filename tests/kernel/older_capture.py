"""The worker of a capture as on a kernel before 6.6, without tcx."""

from __future__ import annotations

import sys

from netmond.errors import KernelError
from netmond.frames.worker import CaptureJob
from netmond.kernel import libbpf
from netmond.sessions import runner


def _refused(program: int, target: int, attach_type: int, flags: int = 0) -> int:
    raise KernelError("cannot attach: Invalid argument")


libbpf.create_link = _refused
sys.exit(runner.main(CaptureJob))
