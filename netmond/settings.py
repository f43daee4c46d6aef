"""How one configuration key is declared and read: `Setting`, its `Kind`, and errors a person can act on.

`config` declares the daemon's keys with it, each output its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_interface, ip_network
from pathlib import Path
from typing import Any

from netmond.errors import ConfigError
from netmond.model import Network


@dataclass(frozen=True, slots=True)
class Kind:
    """How one sort of value is read.

    `parse` takes the TOML value; a TypeError, or a ValueError without text, means "must be `allowed`",
    a ValueError with text says something better. `from_text` makes a TOML value of a flag's text.
    """

    allowed: str
    parse: Callable[[Any], Any]
    from_text: Callable[[str], Any] = str
    repeats: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One key. `section` is empty for the keys an output declares."""

    key: str
    kind: Kind
    default: Any
    help: str
    section: str = ""
    flags: tuple[str, ...] = ()
    metavar: str = ""
    env: str = ""
    in_file: bool = True
    restart: bool = False  #: a change takes effect at the next start, not on reload

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}" if self.section else self.key


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return value


def _number_from_text(text: str) -> Any:
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def number(low: float, high: float, what: str = "number") -> Kind:
    """A number in a range, read as float."""

    def parse(value: Any) -> float:
        if not low <= _number(value) <= high:
            raise ValueError
        return float(value)

    return Kind(f"a {what} from {low:.12g} to {high:.12g}", parse, _number_from_text)


def whole(low: int, high: int, what: str = "whole number") -> Kind:
    def parse(value: Any) -> int:
        if not isinstance(value, int) or not low <= _number(value) <= high:
            raise ValueError
        return value

    return Kind(f"a {what} from {low} to {high}", parse, _number_from_text)


def size(low: int, high: int) -> Kind:
    """Bytes: a whole number, or text with the suffix K, M, G or T (powers of 1024)."""

    def parse(value: Any) -> int:
        if isinstance(value, str):
            match = re.fullmatch(r"([0-9]{1,15})\s*([KMGT]?)(i?B)?", value, re.ASCII)
            if match is None:
                raise ValueError
            value = int(match[1]) << (10 * " KMGT".index(match[2] or " "))
        if not isinstance(value, int) or not low <= _number(value) <= high:
            raise ValueError
        return value

    return Kind(f'a size in bytes from {low} to {high}, or text like "16M"', parse)


def text(allowed: str, pattern: str) -> Kind:
    """Text that matches a regular expression as a whole."""
    regex = re.compile(pattern, re.ASCII)

    def parse(value: Any) -> str:
        if not isinstance(value, str) or not regex.fullmatch(value):
            raise ValueError
        return value

    return Kind(allowed, parse)


def choice(*names: str, aliases: Mapping[str, str] | None = None) -> Kind:
    """One of some names; `aliases` are accepted and read as the name they stand for."""

    def parse(value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError
        name = (aliases or {}).get(value, value)
        if name not in names:
            raise ValueError
        return name

    return Kind("one of " + ", ".join(names), parse)


def several(item: Kind) -> Kind:
    """A list without repetitions; one text value stands for a list, commas separate."""

    def parse(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str):
            value = split(value)
        if not isinstance(value, list):
            raise TypeError
        return tuple(dict.fromkeys(parse_item(each) for each in value))

    def parse_item(value: Any) -> Any:
        try:
            return item.parse(value)
        except (TypeError, ValueError) as error:
            better = str(error) if isinstance(error, ValueError) else ""
            raise ValueError(better or f"{shown(value)} is not {item.allowed}") from None

    def split(joined: str) -> list[str]:
        return [part.strip() for part in joined.split(",") if part.strip()]

    return Kind(f"a list, each {item.allowed}", parse, split, repeats=True)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _directory(value: Any) -> Path:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError
    return Path(value)


def _network(value: Any) -> Network:
    if not isinstance(value, str):
        raise TypeError
    address = value.strip()
    if "%" in address:
        raise ValueError(
            f"{shown(address)}: a target cannot name an interface, leave out what follows the %"
        )
    try:
        network = ip_network(address)
    except ValueError:
        raise ValueError(_host_bits(address)) from None
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ip_network((mapped, network.prefixlen - 96))
    return network


def _host_bits(address: str) -> str:
    """What was probably meant by an address with host bits set; nothing if it is no address."""
    try:
        meant = ip_interface(address)
    except ValueError:
        return ""
    return (
        f"{address} has host bits set: write {meant.network} for the network or {meant.ip} for one address"
    )


BOOLEAN = Kind("true or false", _boolean)
DIRECTORY = Kind("an absolute path", _directory)
NETWORK = Kind("an address or prefix like 192.0.2.1 or 2001:db8::/32", _network)


@dataclass(frozen=True, slots=True)
class Given:
    """A value and where it was written: `source` is the file, or empty for a flag or variable."""

    value: Any
    source: str
    shown: str  #: key and value as the person wrote them

    def error(self, reason: str) -> ConfigError:
        return ConfigError(
            f"{self.source}: {self.shown}: {reason}" if self.source else f"{self.shown}: {reason}"
        )

    def read(self, kind: Kind) -> Any:
        try:
            return kind.parse(self.value)
        except (TypeError, ValueError, OverflowError) as error:
            better = str(error) if isinstance(error, ValueError) else ""
            raise self.error(better or f"must be {kind.allowed}") from None


def shown(value: Any) -> str:
    """A TOML value in one line of bounded length."""
    if isinstance(value, bool | str):
        written = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, list):
        written = "[" + ", ".join(shown(item) for item in value[:8]) + (", …]" if len(value) > 8 else "]")
    elif isinstance(value, dict):
        written = "{…}"
    else:
        written = str(value)
    written = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in written)
    return written if len(written) <= 100 else written[:99] + "…"


def in_file(file: str, name: str, value: Any) -> Given:
    """The value of a key in a file."""
    return Given(value, file, f"{name} = {shown(value)}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``, did you mean "…"?`` when something known is close, else nothing."""
    import difflib  # only a mistake needs it

    close = difflib.get_close_matches(word, list(known), n=1)
    return f', did you mean "{close[0]}"?' if close else ""


def plain(name: str) -> str:
    """A key or section as it may stand in a message: no control character, bounded length."""
    return shown(name)[1:-1]
