"""What the packaging repeats of the code, or in several of its files, is the same everywhere."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import netmonctl
import netmond
from netmond.bus import names
from netmond.outputs.exported import SOCKET_VARIABLE

ROOT = Path(__file__).resolve().parents[2]


def ini(path: str) -> ConfigParser:
    """A unit file or D-Bus service file; of keys that occur several times, the last."""
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string((ROOT / path).read_text())
    return parser


def test_version() -> None:
    """The Debian packages have the version that the programs tell."""
    newest = re.match(r"netmond \((.*?)\)", (ROOT / "debian/changelog").read_text())

    assert newest is not None
    assert netmond.__version__ == netmonctl.__version__ == newest[1]


def test_python_packages() -> None:
    """Every folder with modules is installed."""
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^packages = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    folders = {path.parent for name in ("netmond", "netmonctl") for path in (ROOT / name).rglob("*.py")}

    assert listed is not None
    assert {".".join(folder.relative_to(ROOT).parts) for folder in folders} == set(
        re.findall(r'"([\w.]+)"', listed[1])
    )


def test_activation() -> None:
    """Who calls the bus name starts the unit by its alias, which `systemctl disable` takes away."""
    service, unit = ini("packaging/dbus/org.netmond1.service"), ini("systemd/netmond.service")

    assert service["D-BUS Service"]["Name"] == unit["Service"]["BusName"] == names.BUS_NAME
    assert service["D-BUS Service"]["SystemdService"] == unit["Install"]["Alias"]


def users() -> list[str]:
    """The users that are made at installation."""
    return re.findall(r"^u (\S+)", (ROOT / "packaging/sysusers/netmond.conf").read_text(), re.MULTILINE)


def test_users() -> None:
    """The units' users are those that are made at installation; the bus lets one of them have the name."""
    daemon, exporter = ini("systemd/netmond.service"), ini("systemd/netmond-export.service")
    policy = (ROOT / "packaging/dbus/org.netmond1.conf").read_text()

    assert users() == [daemon["Service"]["User"], exporter["Service"]["User"]]
    assert f'<policy user="{users()[0]}">\n    <allow own="{names.BUS_NAME}"/>' in policy


def test_way_to_the_exporter() -> None:
    """The daemon looks for the exporter at its socket, which nobody else may use."""
    socket = ini("systemd/netmond-export.socket")["Socket"]
    units = (ROOT / "systemd/netmond.service").read_text()

    assert f"\nEnvironment={SOCKET_VARIABLE}={socket['ListenStream']}\n" in units
    assert (socket["SocketUser"], socket["SocketMode"]) == (users()[0], "0600")


def test_build_dependencies() -> None:
    """`make deb` installs whatever debian/control wants for the build."""
    control = (ROOT / "debian/control").read_text()
    wanted = re.search(r"^Build-Depends:\n((?: .*\n)+)", control, re.MULTILINE)
    installed = re.search(r"^DEB_PACKAGES := ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert wanted is not None
    assert installed is not None

    # Names that packages provide: debhelper's compatibility levels and what dh loads.
    provided = {
        "debhelper-compat": "debhelper",
        "dh-sequence-installsysusers": "debhelper",
        "dh-sequence-python3": "dh-python",
    }
    packages = set(re.findall(r"^ ([\w-]+)", wanted[1], re.MULTILINE))

    assert {provided.get(package, package) for package in packages} <= {"python3", *installed[1].split()}
