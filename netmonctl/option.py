"""What an option of netmonctl is, and the kinds of values that options take."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


def seconds(text: str) -> float:
    """A span of at least a tenth of a second."""
    value = float(text)
    if not math.isfinite(value) or not 0.1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0.1 and 86400 seconds")
    return value


def whole(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not low <= int(text[:20]) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return number


def network(text: str) -> str:
    """An address or a prefix, as it is."""
    from ipaddress import ip_network

    try:
        ip_network(text, strict=False)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an address nor a prefix") from None
    return text


def column(text: str) -> str:
    return text.replace("-", "_")


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its flags and what argparse is to do with it.

    `attached`: its value is optional and must be written ``--option=value``.
    """

    flags: tuple[str, ...]
    how: Mapping[str, Any]
    completer: Callable[..., list[str]] | None = None
    attached: bool = False

    @property
    def takes_value(self) -> bool:
        return "action" not in self.how and not self.attached


def switch(*flags: str, dest: str = "", help: str) -> Option:
    return Option(flags, {"action": "store_true", "help": help} | ({"dest": dest} if dest else {}))
