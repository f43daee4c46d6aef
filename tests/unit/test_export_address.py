"""Addresses of other systems: what is one, what is not, and what is said about it."""

from __future__ import annotations

import dataclasses

import pytest

from netmond.config import OutputConfig, defaults, read_options
from netmond.errors import ConfigError
from netmond.export.address import Address
from netmond.export.json_lines import JsonOutput
from netmond.export.options import OPTIONS


def read(address: object, output: str = "syslog") -> Address | None:
    config = dataclasses.replace(defaults().output(output), options={"address": address})
    found: Address | None = read_options(OPTIONS[output], config)[0]["address"]
    return found


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp:loghost:601", Address("tcp", "loghost", 601)),
        ("udp:192.0.2.1:514", Address("udp", "192.0.2.1", 514)),
        ("udp:[2001:db8::1]:514", Address("udp", "2001:db8::1", 514)),
        ("tcp:[fe80::1%eth0]:65535", Address("tcp", "fe80::1%eth0", 65535)),
        ("unix:/dev/log", Address("unix", path="/dev/log")),
        ("unix:/run/a b:c", Address("unix", path="/run/a b:c")),
        ("", None),
    ],
)
def test_good(text: str, address: Address | None) -> None:
    """Each form is read, and written as it was."""
    assert read(text) == address
    assert address is None or str(address) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("loghost:514", "must be udp:host:port or tcp:host:port or unix:/path"),
        ("http://loghost:514", "must be udp:host:port"),
        ("tcp:loghost", "must be udp:host:port"),
        ("tcp::514", "must be udp:host:port"),
        ("tcp:log host:514", "must be udp:host:port"),
        ("tcp:2001:db8::1:514", "an IPv6 address in brackets"),
        ("tcp:[loghost]:514", '"loghost" is no IPv6 address'),
        ("tcp:loghost:0", "0 is no port: they go from 1 to 65535"),
        ("tcp:loghost:65536", "65536 is no port"),
        ("unix:dev/log", "the path of the socket must be absolute"),
        ("unix:/dev/log\n", "the path of the socket must be absolute"),
        ("unix:/" + 107 * "a", "at most 107 bytes"),
        (514, "must be udp:host:port"),
    ],
)
def test_bad(text: object, reason: str) -> None:
    """What is no address is refused when the configuration is read, with what is allowed."""
    with pytest.raises(ConfigError, match=r"output\.syslog\.address = ") as caught:
        read(text)

    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("output", "text"), [("json", "udp:a:1"), ("ipfix", "unix:/a")])
def test_schemes_of_each_output(output: str, text: str) -> None:
    """Lines need a stream, IPFIX a network."""
    with pytest.raises(ConfigError, match="must be "):
        read(text, output)


def test_address_is_needed() -> None:
    """Outputs that are switched on without an address say so."""
    config: OutputConfig = defaults().output("json")
    with pytest.raises(ConfigError, match=r"output\.json\.address is missing"):
        JsonOutput().init(config)
