"""What the decoders of frames write to: one line of text, and the same as values for JSON."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Line:
    """Grows while a frame is taken apart; one that breaks off leaves what was known until then.

    layer: what is being decoded, shown as ``[|tcp]`` if the frame ends within it, as tcpdump does.
    """

    layer: str = ""
    depth: int = 0  #: of packets within packets
    values: dict[str, Any] = field(default_factory=dict)
    _parts: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Text for people."""
        self._parts.append(text)

    def know(self, **values: Any) -> None:
        """Values for programs; of packets within packets those of the outermost stay."""
        if not self.depth:
            self.values.update(values)

    def cut(self) -> None:
        """The frame ends here, in the middle of a layer."""
        self._parts.append(f"[|{self.layer}]")

    @property
    def text(self) -> str:
        return "".join(self._parts)


def ipv4(data: bytes) -> str:
    """An address as text; ValueError if it is cut off."""
    return socket.inet_ntop(socket.AF_INET, data)


def ipv6(data: bytes) -> str:
    """The same, in the form of RFC 5952."""
    return socket.inet_ntop(socket.AF_INET6, data)


def mac(data: bytes) -> str:
    return data.hex(":")
