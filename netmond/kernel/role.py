"""What the interface programs know of an interface."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What struct port of bpf/types.h says of an interface beyond its place."""

    link_header: int  #: bytes, 0: none
    loopback: bool = False
    flags: int = 0  #: wire.PORT_*
    master: int = 0  #: index of its bridge or bond
    address: bytes = bytes(6)  #: of its bridge
