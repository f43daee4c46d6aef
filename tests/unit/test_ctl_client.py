"""netmonctl's D-Bus side without a bus: errors, what may be sent, what is imported when."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import netmonctl
from netmonctl.calls import Call, translated
from netmonctl.client import connect
from netmonctl.errors import CtlError, ExitCode

PACKAGE = Path(netmonctl.__file__).parent


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("org.netmond1.Error.Failed", 1),
        ("org.netmond1.Error.InvalidArgs", 2),
        ("org.netmond1.Error.AccessDenied", 4),
        ("org.netmond1.Error.NotFound", 5),
        ("org.netmond1.Error.NoSuchTarget", 5),
        ("org.netmond1.Error.NoSuchUser", 5),
        ("org.netmond1.Error.NoSuchInterface", 5),
        ("org.netmond1.Error.AlreadyExists", 1),
        ("org.netmond1.Error.LimitExceeded", 1),
        ("org.netmond1.Error.Unavailable", 1),
        ("org.netmond1.Error.SomethingNew", 1),
        ("org.freedesktop.DBus.Error.ServiceUnknown", 3),
        ("org.freedesktop.DBus.Error.NameHasNoOwner", 3),
        ("org.freedesktop.DBus.Error.NoReply", 3),
        ("org.freedesktop.DBus.Error.AccessDenied", 4),
        ("org.freedesktop.DBus.Error.InvalidArgs", 2),
        ("org.freedesktop.DBus.Error.UnknownObject", 5),
        ("org.freedesktop.DBus.Error.UnknownMethod", 1),
    ],
)
def test_exit_codes(name: str, code: int) -> None:
    """Every D-Bus error name has its documented exit code."""
    assert translated(name, "text").code == code


def test_texts() -> None:
    """netmond's own words are passed on; the bus's are replaced by what to do."""
    assert str(translated("org.netmond1.Error.NoSuchTarget", "no target 192.0.2.1")) == "no target 192.0.2.1"
    assert (
        str(translated("org.freedesktop.DBus.Error.NameHasNoOwner", "Could not get owner of name…"))
        == "netmond is not running; start it: systemctl start netmond"
    )
    assert str(translated("org.netmond1.Error.Failed", "")) == "org.netmond1.Error.Failed"


@pytest.mark.parametrize("text", ["a\0b", "a\udcffb"])
def test_unsendable_text(text: str) -> None:
    """What D-Bus cannot carry is refused here: the bus would hang up without a reason."""
    with connect() as client, pytest.raises(CtlError) as caught:
        client.listing("Users", {"user": text})

    assert caught.value.code == ExitCode.USAGE


@pytest.mark.parametrize(
    "address", ["unix:path=/nonexistent/bus", "no address at all", "unix:path=/dev/null"]
)
def test_no_bus(address: str) -> None:
    """Without a bus there is no daemon either: exit code 3 and one line, from the program itself."""
    done = subprocess.run(
        [sys.executable, "-m", "netmonctl", "status"],
        cwd=PACKAGE.parent,
        env=os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": address},
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("netmonctl: cannot reach the system bus (")
    assert done.stderr.count("\n") == 1


def test_calls_are_values() -> None:
    """A call compares by content, so that tests can state what goes over the bus."""
    assert Call("/a", "b", "c") == Call("/a", "b", "c", (), ())


def test_start_is_quick() -> None:
    """Importing the whole client loads neither the D-Bus library nor asyncio nor curses."""
    code = "import sys, netmonctl.__main__; print({'dbus_next', 'asyncio', 'curses'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_imports() -> None:
    """The client shares nothing with the daemon, and one module alone knows the D-Bus library."""
    imports = {path.name: _imports(path) for path in PACKAGE.glob("*.py")}
    assert not [name for name, modules in imports.items() if "netmond" in modules]
    assert [name for name, modules in imports.items() if "dbus_next" in modules] == ["systembus.py"]
