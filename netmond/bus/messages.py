"""Messages we send: dbus-next's Message around a body that is encoded already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from dbus_next.constants import MessageFlag, MessageType
from dbus_next.message import Message

from netmond.bus import marshal, names
from netmond.bus.descriptors import Descriptor
from netmond.bus.marshal import Variant

_LITTLE_ENDIAN, _PROTOCOL_VERSION = ord("l"), 1
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION = 1, 2, 3, 4, 5, 6
_SIGNATURE, _UNIX_FDS = 8, 9


class Remote(NamedTuple):
    """An interface of an object of somebody else."""

    destination: str
    path: str
    interface: str


#: The message bus itself.
BUS = Remote(names.DBUS, names.DBUS_PATH, names.DBUS)


class Call(Protocol):
    """What is needed of a call to answer it."""

    @property
    def sender(self) -> Any: ...

    @property
    def serial(self) -> Any: ...


class Outgoing(Message):
    """A message whose body is bytes; dbus-next's own marshalling is not used."""

    def __init__(
        self, *, encoded: bytes | bytearray = b"", files: tuple[Descriptor, ...] = (), **header: Any
    ) -> None:
        super().__init__(**header)
        self.encoded = encoded
        self.files = files

    def _marshall(self, negotiate_unix_fd: bool = False) -> bytearray:
        fields = [
            (_PATH, "o", self.path),
            (_INTERFACE, "s", self.interface),
            (_MEMBER, "s", self.member),
            (_ERROR_NAME, "s", self.error_name),
            (_REPLY_SERIAL, "u", self.reply_serial),
            (_DESTINATION, "s", self.destination),
            (_SIGNATURE, "g", self.signature),
            (_UNIX_FDS, "u", len(self.files)),
        ]
        header = [_LITTLE_ENDIAN, self.message_type.value, int(self.flags), _PROTOCOL_VERSION]
        header += [len(self.encoded), self.serial]
        present = [(code, Variant(kind, value)) for code, kind, value in fields if value]
        frame = marshal.encode("yyyyuua(yv)", [*header, present])
        frame += bytes(-len(frame) % 8)
        frame += self.encoded
        return frame


def call(where: Remote, member: str, signature: str, values: Sequence[Any]) -> Outgoing:
    """A method call."""
    return Outgoing(
        destination=where.destination,
        path=where.path,
        interface=where.interface,
        member=member,
        signature=signature,
        encoded=marshal.encode(signature, values),
    )


def method_return(
    call: Call, signature: str, encoded: bytes | bytearray, files: tuple[Descriptor, ...]
) -> Outgoing:
    """The result of a call, and the files that go with it."""
    return Outgoing(
        message_type=MessageType.METHOD_RETURN,
        flags=MessageFlag.NO_REPLY_EXPECTED,
        destination=call.sender,
        reply_serial=call.serial,
        signature=signature,
        encoded=encoded,
        files=files,
    )


def error(call: Call, name: str, text: str) -> Outgoing:
    """The failure of a call, told in one line."""
    return Outgoing(
        message_type=MessageType.ERROR,
        flags=MessageFlag.NO_REPLY_EXPECTED,
        destination=call.sender,
        reply_serial=call.serial,
        error_name=name,
        signature="s",
        encoded=marshal.encode("s", [" ".join(text.split())]),
    )


def signal(path: str, interface: str, member: str, signature: str, values: Sequence[Any]) -> Outgoing:
    """A signal to everyone who listens."""
    return Outgoing(
        message_type=MessageType.SIGNAL,
        flags=MessageFlag.NO_REPLY_EXPECTED,
        path=path,
        interface=interface,
        member=member,
        signature=signature,
        encoded=marshal.encode(signature, values),
    )
