"""Python values as D-Bus message bodies, fast enough for thousands of rows; received options as values.

dbus-next checks and packs value by value and takes seven times as long. Here each (key, type) of a row has
its bytes prepared: every dict entry starts on an 8-byte boundary, so they do not depend on what came before.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from dbus_next.signature import SignatureTree
from dbus_next.signature import Variant as ReceivedVariant

#: Integers in rows that are not "t".
INTEGER_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("uid", "pid", "flows", "flow_count", "family", "index", "srtt_us", "retransmits"), "u"),
    **dict.fromkeys(("queue_pair", "remote_queue_pair", "queue_pairs", "sequence", "port", "lid"), "u"),
    **dict.fromkeys(("local_port", "remote_port", "partition_key"), "q"),
    **dict.fromkeys(("total", "every"), "u"),
    **dict.fromkeys(("line_packets", "line_bytes"), "x"),
}

_STRUCTS = {
    "y": struct.Struct("<B"), "n": struct.Struct("<h"), "q": struct.Struct("<H"), "i": struct.Struct("<i"),
    "u": struct.Struct("<I"), "x": struct.Struct("<q"), "t": struct.Struct("<Q"), "d": struct.Struct("<d"),
    "h": struct.Struct("<I"),
}  # fmt: skip
_LENGTH = struct.Struct("<I")
_PADDING = [bytes(n) for n in range(8)]

Encoder = Callable[[bytearray, Any], None]


class Variant(NamedTuple):
    """A value to send as "v" with the type said, where the type does not follow from value and key."""

    signature: str
    value: Any


def encode(signature: str, values: Sequence[Any]) -> bytearray:
    """The body of a message. Variants are Variant or, in an a{sv}, plain values as described at `type_of`.

    Structs are any sequence, arrays any iterable, dictionaries mappings or pairs; "h" is the place among the
    descriptors sent with the message. A wrong type raises TypeError, ValueError, AttributeError or
    struct.error.
    """
    buffer = bytearray()
    for encoder, value in zip(_encoders(signature), values, strict=True):
        encoder(buffer, value)
    return buffer


def plain_options(options: Mapping[str, ReceivedVariant]) -> dict[str, tuple[str, Any]]:
    """A received a{sv} as name -> (D-Bus type, value), which is what netmond.query checks."""
    return {name: (variant.signature, variant.value) for name, variant in options.items()}


def type_of(key: str, value: object) -> str:
    """The D-Bus type of a plain value in an a{sv}: by its Python type, for integers by its key."""
    if isinstance(value, bool):
        return "b"
    if isinstance(value, int):
        return INTEGER_TYPES.get(key, "t")
    if isinstance(value, float):
        return "d"
    if isinstance(value, str):
        return "s"
    if isinstance(value, dict):
        return "a{st}"
    if isinstance(value, list):
        return "aa{sv}"
    raise TypeError(f"{key} has a value of type {type(value).__name__}")


@lru_cache(maxsize=256)
def _encoders(signature: str) -> tuple[Encoder, ...]:
    return tuple(_encoder(kind) for kind in SignatureTree(signature).types)


def _encoder(kind: Any) -> Encoder:
    """The encoder of one complete type (a dbus_next SignatureType)."""
    if kind.token in _STRUCTS:
        return _number(_STRUCTS[kind.token])
    if kind.token == "a":
        (child,) = kind.children
        if child.token == "{":
            key, value = child.children
            return _plain_dictionary if key.token == "s" and value.token == "v" else _dictionary(key, value)
        return _array(_encoder(child), 8 if child.token in "xtd(" else 4)
    if kind.token == "(":
        return _struct([_encoder(child) for child in kind.children])
    return _OTHERS[kind.token]


def _number(packer: struct.Struct) -> Encoder:
    def encode(buffer: bytearray, value: Any) -> None:
        buffer += _PADDING[-len(buffer) % packer.size]
        buffer += packer.pack(value)

    return encode


def _boolean(buffer: bytearray, value: bool) -> None:
    buffer += _PADDING[-len(buffer) & 3]
    buffer += _LENGTH.pack(bool(value))


def _string(buffer: bytearray, value: str) -> None:
    data = value.encode()
    buffer += _PADDING[-len(buffer) & 3]
    buffer += _LENGTH.pack(len(data))
    buffer += data
    buffer.append(0)


def _signature(buffer: bytearray, value: str) -> None:
    data = value.encode()
    buffer.append(len(data))
    buffer += data
    buffer.append(0)


def _variant(buffer: bytearray, value: Variant) -> None:
    signature, inner = value
    _signature(buffer, signature)
    (encoder,) = _encoders(signature)
    encoder(buffer, inner)


def _struct(members: list[Encoder]) -> Encoder:
    def encode(buffer: bytearray, value: Any) -> None:
        buffer += _PADDING[-len(buffer) & 7]
        for member, part in zip(members, value, strict=True):
            member(buffer, part)

    return encode


def _array(child: Encoder, alignment: int) -> Encoder:
    def encode(buffer: bytearray, value: Any) -> None:
        start = _open_array(buffer, alignment)
        for item in value:
            child(buffer, item)
        _LENGTH.pack_into(buffer, start[0], len(buffer) - start[1])

    return encode


def _dictionary(key_kind: Any, value_kind: Any) -> Encoder:
    key_encoder, value_encoder = _encoder(key_kind), _encoder(value_kind)

    def encode(buffer: bytearray, value: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> None:
        start = _open_array(buffer, 8)
        for key, item in value.items() if isinstance(value, Mapping) else value:
            buffer += _PADDING[-len(buffer) & 7]
            key_encoder(buffer, key)
            value_encoder(buffer, item)
        _LENGTH.pack_into(buffer, start[0], len(buffer) - start[1])

    return encode


def _plain_dictionary(buffer: bytearray, value: Mapping[str, Any]) -> None:
    """An a{sv}."""
    start = _open_array(buffer, 8)
    for key, item in value.items():
        signature, inner = item if type(item) is Variant else (type_of(key, item), item)
        head, packer, encoder = _entry(key, signature)
        buffer += _PADDING[-len(buffer) & 7]
        buffer += head
        if packer is not None:
            buffer += packer.pack(inner)
        else:
            encoder(buffer, inner)
    _LENGTH.pack_into(buffer, start[0], len(buffer) - start[1])


@lru_cache(maxsize=1024)
def _entry(key: str, signature: str) -> tuple[bytes, struct.Struct | None, Encoder]:
    """What precedes the value of an a{sv} entry, and how the value is packed; numbers are padded already."""
    (encoder,) = _encoders(signature)
    head = bytearray()
    _string(head, key)
    _signature(head, signature)
    packer = _LENGTH if signature == "b" else _STRUCTS.get(signature)
    if packer is not None:
        head += _PADDING[-len(head) % packer.size]
    return bytes(head), packer, encoder


def _open_array(buffer: bytearray, alignment: int) -> tuple[int, int]:
    """Write room for the length; return where that is and where the elements begin."""
    buffer += _PADDING[-len(buffer) & 3]
    place = len(buffer)
    buffer += _PADDING[4]
    if alignment == 8:
        buffer += _PADDING[-len(buffer) & 7]
    return place, len(buffer)


_OTHERS: Mapping[str, Encoder] = {
    "s": _string,
    "o": _string,
    "g": _signature,
    "b": _boolean,
    "v": _variant,
}
