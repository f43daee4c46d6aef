"""The options of captures and paths, as D-Bus callers give them and workers get them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from netmond.config import SessionsConfig
from netmond.config_table import INTERFACE
from netmond.errors import InvalidArgs
from netmond.model import NOBODY_UID
from netmond.query import network_text, parse_network

CAPTURE, PATH = "capture", "path"

#: Values of one list.
_MOST = 256

#: Bytes of a frame, at most and if nothing is said; of a buffer, if nothing is said.
SNAPLEN, BUFFER = 262_144, 32 << 20

#: Characters of a filter; bytes of the name of a process, whose sixteenth ends it (TASK_COMM_LEN).
_FILTER, _COMMAND = 16_384, 15

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Option:
    """check: returns the value as it goes to the worker, in JSON. ValueError: why it cannot be that."""

    signature: str
    default: Any
    check: Callable[[Any], Any]


def check(kind: str, given: Values, limits: SessionsConfig) -> dict[str, Any]:
    """All options of a session, those not given with their defaults. InvalidArgs: which one is wrong.

    given: values of the types in `OPTIONS`.
    """
    values = {name: option.default for name, option in OPTIONS[kind].items()}
    for name, value in given.items():
        try:
            values[name] = OPTIONS[kind][name].check(value)
        except ValueError as error:
            raise InvalidArgs(f"option {name}: {error}") from None
    values["duration"] = _within("duration", values["duration"], limits.duration)
    if kind == CAPTURE:
        values["buffer"] = _within("buffer", values["buffer"], limits.buffer, usual=BUFFER)
    return values


def _within(name: str, value: float, most: float, usual: float = math.inf) -> float:
    """What is asked for, or 0 for what is usual: no more than the configuration allows; there 0 is all."""
    most = most or math.inf
    if value > most:
        raise InvalidArgs(f"option {name}: {value:.12g} is more than [sessions] {name} = {most:.12g} allows")
    least = value or min(usual, most)
    return 0 if least == math.inf else least


def _number(low: float, high: float) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not low <= value <= high:  # also if it is no number
            raise ValueError(f"{value:.12g} is not from {low:.12g} to {high:.12g}")
        return value

    return check


def _text(what: str, fits: Callable[[str], bool]) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not fits(value) or "\0" in value:
            raise ValueError(f"{_shown(value)} is not {what}")
        return value

    return check


def _one_of(*allowed: str) -> Callable[[str], str]:
    return _text(f"one of {', '.join(allowed)}", allowed.__contains__)


def _several(item: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    def check(values: list[Any]) -> list[Any]:
        if len(values) > _MOST:
            raise ValueError(f"{len(values)} values; at most {_MOST} are taken")
        return list(dict.fromkeys(item(value) for value in values))

    return check


def _interface(value: str) -> str:
    try:
        return str(INTERFACE.parse(value))
    except ValueError:
        raise ValueError(f"{_shown(value)} cannot be the name of an interface") from None


def _user(value: int) -> int:
    if value == NOBODY_UID:
        raise ValueError(f"{value} is no user id")
    return value


def _network(value: str) -> str:
    try:
        return network_text(parse_network(value))
    except InvalidArgs as error:
        raise ValueError(str(error)) from None


def _any(value: Any) -> Any:
    return value


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 64 else text[:61] + "...")


_USERS = Option("au", [], _several(_user))
_STAGE = _text("the name of a stage", lambda value: 0 < len(value) < 64)
_COUNT = Option("t", 0, _any)
_DURATION = Option("d", 0.0, _number(0, 31_536_000))

#: By kind of session and name.
OPTIONS: Mapping[str, Mapping[str, Option]] = {
    CAPTURE: {
        "interfaces": Option("as", [], _several(_interface)),
        "direction": Option("s", "both", _one_of("in", "out", "both")),
        "filter": Option("s", "", _text("shorter than 16 KiB", lambda value: len(value) < _FILTER)),
        "users": _USERS,
        "units": Option("as", [], _several(_text("the name of a unit", lambda value: 0 < len(value) < 256))),
        "processes": Option(
            "as",
            [],
            _several(
                _text(
                    f"a command name as the kernel has it: 1 to {_COMMAND} bytes",
                    lambda value: 0 < len(value.encode(errors="replace")) <= _COMMAND,
                )
            ),
        ),
        "pids": Option("au", [], _several(_number(1, (1 << 22)))),
        "snaplen": Option("u", SNAPLEN, _number(1, SNAPLEN)),
        "count": _COUNT,
        "duration": _DURATION,
        "buffer": Option("t", 0, _number(1 << 16, 1 << 30)),
        "comments": Option("b", True, _any),
    },
    PATH: {
        "addresses": Option("as", [], _several(_network)),
        "ports": Option("aq", [], _several(_number(1, 65_535))),
        "protocols": Option("as", [], _several(_one_of("tcp", "udp", "icmp"))),
        "users": _USERS,
        "drops": Option("b", False, _any),
        "stages": Option("as", [], _several(_STAGE)),
        "rate": Option("u", 10_000, _any),
        "mode": Option("s", "events", _one_of("events", "stats")),
        "interval": Option("d", 1.0, _number(0.1, 3600)),
        "count": _COUNT,
        "duration": _DURATION,
    },
}
