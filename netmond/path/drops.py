"""Why the kernel dropped a packet, in its own words: enum skb_drop_reason of the running kernel.

The numbers differ from one kernel to the next, so the names come from its BTF
(include/net/dropreason-core.h). The upper half of a number is the subsystem whose list the lower half is of
(include/net/dropreason.h, Linux 6.4); those lists are in modules, and BTF of the kernel itself tells only
which subsystem it is. Linux before 5.17 gives no reason.
"""

from __future__ import annotations

from collections.abc import Mapping

from netmond.kernel.btf import Btf

NOT_SPECIFIED = "NOT_SPECIFIED"

_PREFIX, _SUBSYSTEM_PREFIX = "SKB_DROP_REASON_", "SKB_DROP_REASON_SUBSYS_"
_SUBSYSTEM_SHIFT = 16

#: Not reasons: masks and ends of lists.
_MARKS = frozenset(("SUBSYS_MASK", "MAX"))


class Reasons:
    """Names by number."""

    def __init__(self, core: Mapping[int, str], subsystems: Mapping[int, str]) -> None:
        """core, subsystems: the kernel's enumerations; both empty: it has none."""
        self._names = {
            number: short
            for number, name in core.items()
            if (short := name.removeprefix(_PREFIX)) not in _MARKS
        }
        self._subsystems = {
            number: name.removeprefix(_SUBSYSTEM_PREFIX) for number, name in subsystems.items()
        }

    @staticmethod
    def of_this_kernel() -> Reasons:
        """KernelError: there is no BTF."""
        with Btf() as btf:
            return Reasons(btf.enumerators("skb_drop_reason"), btf.enumerators("skb_drop_reason_subsys"))

    def name(self, number: int) -> str:
        """``NO_SOCKET``; ``OPENVSWITCH:3`` of a subsystem; the number itself if nothing is known of it."""
        if not self._names or not number:
            return NOT_SPECIFIED
        subsystem, own = divmod(number, 1 << _SUBSYSTEM_SHIFT)
        if subsystem:
            return f"{self._subsystems.get(subsystem, subsystem)}:{own}"
        return self._names.get(number, str(number))
