"""Makes a process see a kernel before 6.6, without tcx: links of that kind are refused. To be imported."""

from __future__ import annotations

from netmond.errors import KernelError
from netmond.kernel import libbpf, programs

_create_link = libbpf.create_link


def _without_tcx(program: int, target: int, attach_type: int, flags: int = 0) -> int:
    if attach_type in (programs.TCX_INGRESS, programs.TCX_EGRESS):
        raise KernelError("cannot attach: Invalid argument")
    return _create_link(program, target, attach_type, flags)


libbpf.create_link = _without_tcx
