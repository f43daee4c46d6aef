"""The directions of imports and the sizes of files, as ARCHITECTURE.md promises them."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: A module imports only from lower levels, or from its own package. A package stands for all its modules
#: that are not named themselves.
LEVELS = (
    {"netmond", "netmond.errors", "netmond.model", "netmond.kernel.wire"},
    {
        "netmond.accounts",
        "netmond.capture",
        "netmond.checkpoint",
        "netmond.clock",
        "netmond.columns",
        "netmond.flowrows",
        "netmond.footprint",
        "netmond.ledger",
        "netmond.kernel",
        "netmond.notify",
        "netmond.settings",
        "netmond.tomlfiles",
        "netmond.units",
        "netmond.users",
        "netmond.worker",
    },
    {
        "netmond.aging",
        "netmond.balance",
        "netmond.config_table",
        "netmond.owner_texts",
        "netmond.passages",
        "netmond.peers",
        "netmond.rdma",
        "netmond.slots",
        "netmond.topology",
        "netmond.xtrace_environment",
    },
    {
        "netmond.attribution",
        "netmond.books",
        "netmond.config",
        "netmond.export.activation",
        "netmond.export.address",
        "netmond.handover",
        "netmond.ports",
        "netmond.roce",
        "netmond.state",
        "netmond.views",
    },
    {
        "netmond.export.options",
        "netmond.export.stream",
        "netmond.export.tables",
        "netmond.query",
        "netmond.rdma.monitor",
        "netmond.rdma.views",
    },
    {"netmond.export.encoding", "netmond.matching"},
    {"netmond.answers", "netmond.interfaces", "netmond.meter", "netmond.outputs"},
    {"netmond.sessions"},
    {
        "netmond.bus",
        "netmond.export",
        "netmond.packetlog",
        "netmond.search",
        "netmond.targets",
    },
    {
        "netmond.byhand",
        "netmond.collector",
        "netmond.frames",
        "netmond.path",
        "netmond.succession",
        "netmond.totals",
    },
    {"netmond.assembly"},
    {"netmond.daemon"},
    {"netmond.__main__"},
)
_LEVEL_OF = {name: number for number, names in enumerate(LEVELS) for name in names}

#: What may be imported from elsewhere, and by whom: modules, or a package for all of its modules.
OUTSIDE = {
    "numpy": {"netmond"},
    "bcc": {"netmond.kernel.compiler"},
    "dbus_next": {"netmond.bus", "netmonctl.systembus"},
    "systemd": {"netmond.outputs"},
    "posix1e": {"netmond.outputs"},
    "argcomplete": {"netmonctl"},
    "tomli": {"netmond.tomlfiles"},
    "prometheus_client": {"netmond.export.exposition"},
}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_of(path): path
    for name in ("netmond", "netmonctl")
    for path in sorted((ROOT / name).rglob("*.py"))
}


@cache
def imports(module: str) -> frozenset[str]:
    """The modules that a module imports anywhere, also lazily or for types only."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & MODULES.keys() or {node.module}
    return frozenset(found)


def part_of(module: str) -> str:
    """The name under which LEVELS has a module: its own or its package's."""
    while module not in _LEVEL_OF and "." in module:
        module = module.rpartition(".")[0]
    return module


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def of(package: str) -> list[str]:
    return [module for module in MODULES if within(module, package)]


def test_all_modules_have_a_level() -> None:
    """A new module takes its place in the table; nothing stays there that is gone."""
    named = {module if part_of(module) == module else part_of(module) for module in of("netmond")}

    assert named == _LEVEL_OF.keys()
    assert [module for module in of("netmond") if part_of(module) == "netmond"] == ["netmond"]


@pytest.mark.parametrize("module", of("netmond"))
def test_imports_point_down(module: str) -> None:
    """Only lower levels and the module's own package."""
    part = part_of(module)
    upward = [
        other
        for other in imports(module)
        if within(other, "netmond")
        and part_of(other) != part
        and _LEVEL_OF[part_of(other)] >= _LEVEL_OF[part]
    ]

    assert upward == []


def test_kernel_and_bus_do_not_know_each_other() -> None:
    """They meet in the daemon only."""
    assert [
        (module, other)
        for module in of("netmond.kernel")
        for other in imports(module)
        if within(other, "netmond.bus")
    ] == []
    assert [
        (module, other)
        for module in of("netmond.bus")
        for other in imports(module)
        if within(other, "netmond.kernel")
    ] == []


def test_the_client_shares_nothing_with_the_daemon() -> None:
    """netmonctl imports nothing from netmond, nor the other way round: but the library reads as it does."""
    assert [
        module for module in of("netmonctl") if any(within(other, "netmond") for other in imports(module))
    ] == []
    assert {
        (module, other)
        for module in of("netmond")
        for other in imports(module)
        if within(other, "netmonctl")
    } == {("netmond.capture", "netmonctl.pcapng")}


@pytest.mark.parametrize("module", MODULES)
def test_what_comes_from_elsewhere(module: str) -> None:
    """Beside the standard library only the listed packages, each where it belongs."""
    foreign = {other.split(".")[0] for other in imports(module)} - {
        "netmond",
        "netmonctl",
        *sys.stdlib_module_names,
    }

    misplaced = {
        name for name in foreign if not any(within(module, place) for place in OUTSIDE.get(name, ()))
    }

    assert misplaced == set()


@pytest.mark.parametrize("name", ["bcc", "dbus_next"])
def test_the_table_of_outsiders_is_needed(name: str) -> None:
    """The modules that hold a dependency do import it: the rules above look at what they should."""
    users = {module for module in MODULES if any(within(other, name) for other in imports(module))}

    assert all(any(within(module, place) for module in users) for place in OUTSIDE[name])


@pytest.mark.parametrize("folder", ["netmond", "netmonctl", "bpf"])
def test_files_stay_small(folder: str) -> None:
    """No source file has more than 500 lines."""
    files = [path for suffix in ("*.py", "*.c", "*.h") for path in (ROOT / folder).rglob(suffix)]
    lengths = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in files}

    assert lengths
    assert {name: length for name, length in lengths.items() if length > 500} == {}
