"""netmonctl interfaces --books."""

from __future__ import annotations

import json
from typing import Any

import pytest

from netmonctl.calls import Call
from netmonctl.errors import ExitCode
from tests.unit.test_ctl_commands import Fake, Ran, listing


def row(direction: str, line: str, layer: str, packets: int, size: int, note: str = "") -> dict[str, Any]:
    return {
        "interface": "eth0",
        "index": 2,
        "since": 1700000000.5,
        "direction": direction,
        "line": line,
        "layer": layer,
        "line_packets": packets,
        "line_bytes": size,
        "note": note,
    }


ROWS = (
    row("in", "kernel", "driver", 100, 20_000),
    row("in", "users", "sockets", 60, 12_000),
    row("in", "upper", "tc", 38, 7_500, "br0, vlan7"),
    row("in", "headers", "driver", 0, -1_400),
    row("in", "unattributed", "", 2, 1_900),
    row("in", "wire", "tc", 100, 21_400),
    row("out", "kernel", "driver", 0, 0),
    row("out", "users", "sockets", 0, 0),
    row("out", "unattributed", "", 0, 0),
    row("out", "wire", "tc", 0, 0),
)


def test_a_page() -> None:
    """A table for each direction: what it is, where it was counted, how much; then what is unexplained."""
    ran = Ran(Fake({"ListBooks": listing(*ROWS)}), "interfaces", "--books", "eth0")

    assert ran.code == 0
    assert ran.stdout == (
        "eth0, received since Tue 2023-11-14 22:13:20 UTC\n"
        "LINE                          COUNTED AT  PACKETS  BYTES      SHARE\n"
        "kernel counter                driver          100  20000  100.000 %\n"
        "users                         sockets          60  12000   60.000 %\n"
        "upper interfaces: br0, vlan7  tc               38   7500   37.500 %\n"
        "headers not counted           driver            0  -1400   -7.000 %\n"
        "unattributed                  -                 2   1900    9.500 %\n"
        "(on the wire)                 tc              100  21400  107.000 %\n"
        "\n"
        "eth0, sent since Tue 2023-11-14 22:13:20 UTC\n"
        "LINE            COUNTED AT  PACKETS  BYTES    SHARE\n"
        "kernel counter  driver            0      0  0.000 %\n"
        "users           sockets           0      0  0.000 %\n"
        "unattributed    -                 0      0  0.000 %\n"
        "(on the wire)   tc                0      0  0.000 %\n"
        "\n"
        "9.5000 % unexplained: 1900 of 20000 bytes.\n"
    )


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (("--books", "eth0"), {"interface": "eth0"}),
        (("--books",), {}),
        (("eth0", "--books"), {"interface": "eth0"}),
    ],
)
def test_what_is_asked(words: tuple[str, ...], options: dict[str, Any]) -> None:
    """For one interface, or for all."""
    fake = Fake({"ListBooks": listing(*ROWS)})

    assert Ran(fake, "interfaces", *words).code == 0
    assert fake.calls == [Call("/org/netmond1", "org.netmond1.Manager", "ListBooks", ("a{sv}",), (options,))]


def test_json() -> None:
    """Rows as they come."""
    ran = Ran(Fake({"ListBooks": listing(*ROWS)}), "interfaces", "--books", "--json=short")

    assert json.loads(ran.stdout) == list(ROWS)


def test_without_legend() -> None:
    """Only lines: for scripts that want no JSON."""
    ran = Ran(Fake({"ListBooks": listing(*ROWS[:2])}), "interfaces", "--books", "--no-legend")

    assert ran.stdout.splitlines() == [
        "kernel counter  driver          100  20000  100.000 %",
        "users           sockets          60  12000   60.000 %",
    ]


def test_no_interface_is_monitored() -> None:
    """Nothing to account for, nothing unexplained."""
    assert Ran(Fake({"ListBooks": listing()}), "interfaces", "--books").stdout == ""


def test_a_name_means_books() -> None:
    """The list itself takes none: says how it was meant."""
    ran = Ran(Fake({}), "interfaces", "eth0")

    assert ran.code == ExitCode.USAGE
    assert "netmonctl interfaces --books eth0" in ran.stderr
