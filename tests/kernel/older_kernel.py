"""netmond as on a kernel before 6.6, without tcx: the links of that kind are refused."""

from __future__ import annotations

import sys

from netmond.__main__ import main
from netmond.errors import KernelError
from netmond.kernel import libbpf, programs

_create_link = libbpf.create_link


def _without_tcx(program: int, target: int, attach_type: int, flags: int = 0) -> int:
    if attach_type in (programs.TCX_INGRESS, programs.TCX_EGRESS):
        raise KernelError("cannot attach: Invalid argument")
    return _create_link(program, target, attach_type, flags)


libbpf.create_link = _without_tcx
sys.exit(main())
