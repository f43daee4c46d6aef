"""What the running kernel offers beyond the oldest supported one, as constants a C file is compiled with."""

from __future__ import annotations

from netmond.errors import KernelError
from netmond.kernel.btf import Btf
from netmond.kernel.unit import Offsets

#: A program at a cgroup sees no answer to a new IPv6 connection (SYN-ACK) before Linux 6.6, whose
#: BPF_CGROUP_RUN_PROG_INET_EGRESS() (include/linux/bpf-cgroup.h) knows a request's listener. Nothing in the
#: kernel tells; tcx came with the same version, and where BPF is backported it comes as a whole.
_OF_LINUX_6_6 = "tcx_prog_attach"
_HIDDEN_ANSWERS = "answers to new IPv6 connections (SYN-ACK) are no user's: that takes Linux 6.6"


def kernel_defines(btf: Btf, offsets: Offsets) -> tuple[dict[str, int], list[str]]:
    """The constants, and what is lost where the kernel has no such function or member, with the cause."""
    defines: dict[str, int] = {}
    notes: list[str] = []
    if btf.has_function("bpf_ktime_get_coarse_ns"):
        defines["COARSE_CLOCK"] = 1
    if not btf.has_function(_OF_LINUX_6_6):
        defines["HIDDEN_ANSWERS"] = 1
        notes.append(_HIDDEN_ANSWERS)
    for loss, wanted in offsets:
        try:
            defines.update({macro: btf.offset(structure, member) for macro, structure, member in wanted})
        except KernelError as error:
            notes.append(f"{loss}: {error}")
    return defines, notes
