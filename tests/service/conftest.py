"""Fixtures of the service tier: a machine with systemd, netmond installed on it, two users who talk."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.deadline import eventually
from tests.service.inside import answers, apt, install, is_active, run, systemctl
from tests.service.people import Scene, connected
from tests.service.talk import Far, Talker, make_far

_FIRST = ("test_install", "test_sandbox", "test_traffic", "test_attribution", "test_journal", "test_logs",
          "test_authority", "test_leaks", "test_polkit", "test_intruder")  # fmt: skip
_LAST = ("test_reload", "test_bus", "test_crash", "test_hostile", "test_upgrade", "test_remove")

_IN_MACHINE = "NETMOND_TEST_MACHINE" in os.environ


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "minimal: needs a machine with nothing that netmond needs")


def pytest_ignore_collect() -> bool | None:
    """On other machines these tests would install and remove packages."""
    return None if _IN_MACHINE else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """First what installs, last what removes; the rest between them, in the order of a service's life."""
    names = {name: number for number, name in enumerate(_FIRST)}
    names |= {name: 1000 + number for number, name in enumerate(_LAST)}
    items.sort(key=lambda item: names.get(item.path.stem, 500))
    if "NETMOND_PREINSTALLED" in os.environ:
        gone = [item for item in items if item.get_closest_marker("minimal")]
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


@pytest.hookimpl(hookwrapper=True)  # type: ignore[misc] # pluggy has no types
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Shows what netmond and the service manager said during a test that failed."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed:
        words = ["--unit=netmond.service", f"--since=@{int(call.start)}", "--lines=60", "--no-pager"]
        said = run("journalctl", *words, "--output=short-precise", check=False).out
        report.sections.append((f"journal of netmond since {time.ctime(call.start)}", said))


@pytest.fixture(scope="session")
def repository() -> None:
    """The packages under test, and what they need, are to be had with apt, and nothing else is."""
    Path("/etc/apt/sources.list").write_text("deb [trusted=yes] file:/opt/apt ./\n")
    for other in Path("/etc/apt/sources.list.d").iterdir():
        other.unlink()
    apt("-qq", "update")


@pytest.fixture(scope="session")
def installed(repository: None) -> None:
    """netmond, installed with what it recommends, and running."""
    if not is_active():
        install()
        systemctl("start", "netmond")
    eventually(answers, "netmond is on the bus")


@pytest.fixture(scope="session")
def far(repository: None) -> Iterator[Far]:
    """Another host at the other end of the machine's uplink, which echoes what it is sent."""
    made = make_far()
    yield made
    made.close()


@pytest.fixture(scope="session")
def people() -> None:
    """The users erin and frank."""
    for name in ("erin", "frank"):
        if run("id", name, check=False).code != 0:
            run("useradd", "--create-home", name)


@pytest.fixture(scope="module")
def scene(installed: None) -> Iterator[Scene]:
    """alice, bob, carol and root have traffic and are on the bus."""
    with connected() as made:
        yield made


@pytest.fixture
def talkers(installed: None, people: None, far: Far) -> Iterator[dict[str, Talker]]:
    """A program of each of the two users, in a unit of its own, that sends what the test says."""
    made = {name: Talker(name) for name in ("erin", "frank")}
    yield made
    for talker in made.values():
        talker.close()
