"""Where an output delivers to: ``tcp:host:port``, ``udp:[2001:db8::1]:514``, ``unix:/dev/log``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from netmond.settings import Kind, shown

#: What sockaddr_un takes, unix(7): 108 bytes with the end.
_LONGEST_PATH = 107

_HOST = re.compile(r"(?P<host>[A-Za-z0-9_.-]{1,253}|\[[^\[\]]{2,80}\]):(?P<port>[0-9]{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """Either host and port, or for scheme ``unix`` the path of a socket."""

    scheme: str
    host: str = ""  #: a name or an address, IPv6 without brackets
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        """As it is written."""
        if self.scheme == "unix":
            return f"unix:{self.path}"
        return f"{self.scheme}:[{self.host}]:{self.port}" if ":" in self.host else (
            f"{self.scheme}:{self.host}:{self.port}"
        )  # fmt: skip


def addresses(*schemes: str) -> Kind:
    """A setting that is an `Address` of one of these schemes, or None for empty text."""
    forms = {"unix": "unix:/path", "tcp": "tcp:host:port", "udp": "udp:host:port"}
    allowed = " or ".join(forms[scheme] for scheme in schemes)

    def parse_value(value: Any) -> Address | None:
        if not isinstance(value, str):
            raise TypeError
        return parse(value, schemes) if value else None

    return Kind(f"{allowed}; an IPv6 address in brackets", parse_value)


def parse(text: str, schemes: tuple[str, ...]) -> Address:
    """The address that text means. ValueError: without text if it is of another form, else what is wrong."""
    scheme, _, rest = text.partition(":")
    if scheme not in schemes:
        raise ValueError
    return _parse_path(rest) if scheme == "unix" else _parse_host(scheme, rest)


def _parse_path(path: str) -> Address:
    if not path.startswith("/") or not path.isprintable():
        raise ValueError("the path of the socket must be absolute")
    if len(path.encode()) > _LONGEST_PATH:
        raise ValueError(f"the path of a socket has at most {_LONGEST_PATH} bytes")
    return Address("unix", path=path)


def _parse_host(scheme: str, text: str) -> Address:
    match = _HOST.fullmatch(text)
    if match is None:
        raise ValueError
    host, port = match["host"], int(match["port"])
    if not 1 <= port <= 65535:
        raise ValueError(f"{port} is no port: they go from 1 to 65535")
    if host.startswith("["):
        host = host[1:-1]
        try:
            IPv6Address(host)
        except ValueError:
            raise ValueError(f"{shown(host)} is no IPv6 address") from None
    return Address(scheme, host, port)
