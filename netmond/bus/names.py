"""Every name netmond has on D-Bus: bus name, interfaces, errors, object paths and how they are encoded."""

from __future__ import annotations

import string

BUS_NAME = "org.netmond1"
ROOT_PATH = "/org/netmond1"
TARGETS_PATH = "/org/netmond1/target"
LOG_CONTROL_PATH = "/org/freedesktop/LogControl1"

MANAGER = "org.netmond1.Manager"
TARGET = "org.netmond1.Target"
LOG_CONTROL = "org.freedesktop.LogControl1"

DBUS = "org.freedesktop.DBus"
DBUS_PATH = "/org/freedesktop/DBus"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
PROPERTIES = "org.freedesktop.DBus.Properties"
PEER = "org.freedesktop.DBus.Peer"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"

ERROR_PREFIX = "org.netmond1.Error."
UNKNOWN_OBJECT = "org.freedesktop.DBus.Error.UnknownObject"
UNKNOWN_INTERFACE = "org.freedesktop.DBus.Error.UnknownInterface"
UNKNOWN_METHOD = "org.freedesktop.DBus.Error.UnknownMethod"
UNKNOWN_PROPERTY = "org.freedesktop.DBus.Error.UnknownProperty"
PROPERTY_READ_ONLY = "org.freedesktop.DBus.Error.PropertyReadOnly"
INVALID_ARGS = "org.freedesktop.DBus.Error.InvalidArgs"

_PLAIN = frozenset((string.ascii_letters + string.digits).encode())
_DIGITS = frozenset(string.digits.encode())


def encode_label(text: str) -> str:
    """`text` as one element of an object path, the way sd_bus_path_encode(3) does it."""
    data = text.encode()
    if not data:
        return "_"
    return "".join(
        chr(byte) if byte in _PLAIN and not (index == 0 and byte in _DIGITS) else f"_{byte:02x}"
        for index, byte in enumerate(data)
    )


def decode_label(label: str) -> str | None:
    """The inverse of encode_label; None if no text is encoded so."""
    if label == "_":
        return ""
    first, *rest = label.split("_")
    try:
        text = (first.encode() + b"".join(bytes.fromhex(p[:2]) + p[2:].encode() for p in rest)).decode()
    except ValueError:
        return None
    return text if encode_label(text) == label else None


def target_path(address: str) -> str:
    """The object path of the target `address`, given as in its Address property."""
    return f"{TARGETS_PATH}/{encode_label(address)}"


def target_address(path: str) -> str | None:
    """The address a target's object path stands for; None if the path is no target's."""
    parent, _, label = path.rpartition("/")
    return decode_label(label) if parent == TARGETS_PATH else None
