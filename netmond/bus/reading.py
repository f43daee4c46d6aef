"""From the bytes of one message to a message, at a bounded cost."""

from __future__ import annotations

import io
from typing import Any

from dbus_next._private.unmarshaller import Unmarshaller
from dbus_next.message import Message
from dbus_next.signature import SignatureTree

from netmond.errors import LimitExceeded

#: Most values in a message taken, of any type and depth.
MAX_VALUES = 30_000

#: Callers choose signatures and dbus-next remembers each; at this many it is made to forget them.
_SIGNATURES = 512


class _Bounded(Unmarshaller):
    """Reads a message of at most MAX_VALUES values: pure Python takes a microsecond for each."""

    def __init__(self, frame: bytes) -> None:
        super().__init__(io.BytesIO(frame))  # type: ignore[no-untyped-call]
        self._left = MAX_VALUES

    def read_argument(self, type_: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise LimitExceeded("too many values")
        return super().read_argument(type_)  # type: ignore[no-untyped-call]


def read(frame: bytes) -> Message:
    """The message. LimitExceeded if it has too many values, any other exception if it is none."""
    if len(SignatureTree._cache) > _SIGNATURES:
        SignatureTree._cache.clear()
    message: Message | None = _Bounded(frame).unmarshall()  # type: ignore[no-untyped-call]
    if message is None:
        raise ValueError("the message ends too early")
    return message
