"""What the real verifier refuses, as the compiler tells it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from netmond.errors import KernelError
from netmond.kernel.compile import Compilation
from netmond.kernel.programs import socket_unit
from netmond.kernel.unit import Program

#: Reads memory of the kernel at an address from the packet's length.
UNSAFE = "int unsafe(struct __sk_buff *skb) { return *(int *)(long)skb->len; }\n"


def test_the_reason_is_the_verifiers() -> None:
    """Not a want of capabilities, though it answers EACCES (Permission denied)."""
    unit = replace(
        socket_unit(slots=16, peers=16),
        preamble=UNSAFE,
        programs=(Program(name="unsafe", kind="CGROUP_SKB"),),
        extra=None,
    )

    with pytest.raises(KernelError, match=r"verifier refuses unsafe: R\d invalid mem access '\w+'$"):
        Compilation(unit).result()
