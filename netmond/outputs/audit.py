"""Who changed something over D-Bus, and who was refused: messages for the administrator.

Fields beside MESSAGE_ID:

NETMOND_CALLER_UID   number of the user who called
NETMOND_METHOD       last part of the interface, and method or property, as in ``Manager.AddTargets``
NETMOND_OBJECT       object path
NETMOND_ARGUMENTS    of a change: what it was called with, shortened
NETMOND_REASON       of a refusal: what the caller was told; it names the polkit action
NETMOND_SUPPRESSED   messages of the kind and caller left out before

Each caller has a limit of its own, and another for changes than for refusals: nobody can hide what others
do. An administrator's script may change much at once, so that its limit is higher.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from reprlib import Repr
from time import monotonic
from typing import Any

from netmond.outputs.limit import BURST, Limit, told
from netmond.outputs.log import IDENTIFIER, LEVELS
from netmond.outputs.messages import MessageId

log = logging.getLogger(IDENTIFIER)


class _Short(Repr):
    """Values in a line, those of options without their D-Bus types."""

    def repr_Variant(self, value: Any, level: int) -> str:
        return self.repr1(value.value, level)


_short = _Short()
_short.maxlist = 8
_short.maxdict = 16
_short.maxstring = _short.maxother = 64

#: Of arguments, and of names that a caller made up.
_LONGEST, _LONGEST_NAME = 800, 200

_changes = Limit(burst=10 * BURST)
_refusals = Limit()


def changed(uid: int, path: str, interface: str, member: str, arguments: Sequence[object]) -> None:
    """A call that takes more than asking for figures was carried out; of a property it is its new value."""
    shown = ", ".join(_short.repr(argument) for argument in arguments if argument != {})[:_LONGEST]
    method = _method(interface, member)
    message = f"{method}({shown}) on {path} by user {uid}"
    fields = {"NETMOND_METHOD": method, "NETMOND_OBJECT": path, "NETMOND_ARGUMENTS": shown}
    _write(MessageId.CHANGED, _changes, uid, message, fields)


def denied(uid: int, path: str, interface: str, member: str, reason: str) -> None:
    """A call was refused because its caller lacks the authority; names need not exist."""
    path, method = path[:_LONGEST_NAME], _method(interface, member)
    message = f"{method} on {path} refused to user {uid}: {reason}"
    fields = {"NETMOND_METHOD": method, "NETMOND_OBJECT": path, "NETMOND_REASON": reason}
    _write(MessageId.DENIED, _refusals, uid, message, fields)


def _method(interface: str, member: str) -> str:
    return f"{interface[-_LONGEST_NAME:].rpartition('.')[2]}.{member[:_LONGEST_NAME]}"


def _write(kind: MessageId, limit: Limit, uid: int, message: str, fields: dict[str, str]) -> None:
    suppressed = limit.take(uid, monotonic())
    if suppressed is None:
        return
    message, more = told(message, suppressed)
    extra = {"MESSAGE_ID": kind.value, "NETMOND_CALLER_UID": str(uid), **fields, **more}
    log.log(LEVELS["notice"], "%s", message, extra=extra)
