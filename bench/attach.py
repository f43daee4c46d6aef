"""Programs put to the places where netmond has them, and taken off again at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from netmond.kernel import libbpf
from netmond.kernel.programs import CGROUP_INET_EGRESS, CGROUP_INET_INGRESS, TCX_EGRESS, TCX_INGRESS

_TCX = TCX_INGRESS, TCX_EGRESS

#: Where netmond counts packets: enum bpf_attach_type, and the program of empty.c that fits.
PACKETS = {
    CGROUP_INET_INGRESS: "empty_cgroup",
    CGROUP_INET_EGRESS: "empty_cgroup",
    TCX_INGRESS: "empty_tc",
    TCX_EGRESS: "empty_tc",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A program (its descriptor) and the enum bpf_attach_type of where it goes."""

    program: int
    attach_type: int


def empty_places(programs: Mapping[str, int]) -> list[Place]:
    """Empty programs wherever netmond counts packets."""
    return [Place(programs[name], attach_type) for attach_type, name in PACKETS.items()]


def attach(places: Iterable[Place], cgroup: int, ifindex: int) -> ExitStack:
    """To a cgroup (its descriptor) and an interface of this namespace; closing the result detaches."""
    stack = ExitStack()
    for place in places:
        target = ifindex if place.attach_type in _TCX else cgroup
        stack.callback(os.close, libbpf.create_link(place.program, target, place.attach_type))
    return stack
