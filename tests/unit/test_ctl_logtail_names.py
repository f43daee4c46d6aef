"""Names of hosts and services in netmonctl log tail: rows do not wait for them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netmonctl import logtail
from netmonctl.logtail_names import PENDING, WORKERS, Hosts, look_up, service
from tests.kernel.deadline import eventually
from tests.unit.test_ctl_logtail import Log, Ran


class Names:
    """A name server that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.at_work = self.most = 0
        self.go = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, address: str) -> str:
        with self._lock:
            self.asked.append(address)
            self.at_work += 1
            self.most = max(self.most, self.at_work)
        self.go.wait()
        with self._lock:
            self.at_work -= 1
        return f"host-{address}"


@pytest.fixture
def names() -> Iterator[Names]:
    found = Names()
    yield found
    found.go.set()


def test_a_name_that_comes_at_once(names: Names) -> None:
    """It is there for the row that asks."""
    names.go.set()
    hosts = Hosts(names, patience=60.0)

    hosts.prefetch(["192.0.2.7", "", "192.0.2.9"])

    assert [hosts.name(address) for address in ("192.0.2.7", "192.0.2.9", "192.0.2.11", "")] == [
        "host-192.0.2.7", "host-192.0.2.9", "", "",
    ]  # fmt: skip


def test_a_name_that_comes_later(names: Names) -> None:
    """Rows are shown without it, and have it as soon as it is there; it is asked for once."""
    hosts = Hosts(names, patience=0.001)

    hosts.prefetch(["192.0.2.7"])
    assert hosts.name("192.0.2.7") == ""
    hosts.prefetch(["192.0.2.7"])
    names.go.set()
    eventually(lambda: hosts.name("192.0.2.7") == "host-192.0.2.7", "the name is known")
    hosts.prefetch(["192.0.2.7"])
    assert names.asked == ["192.0.2.7"]


def test_nobody_waits_twice_for_an_address(names: Names) -> None:
    """Patience is for addresses that are new."""
    moments = iter((0.0, 10.0))
    hosts = Hosts(names, patience=5.0, clock=lambda: next(moments, 0.0))
    hosts.prefetch(["192.0.2.7"])  # the clock says that the time is over

    hosts.prefetch(["192.0.2.7"])  # would wait for ever

    assert hosts.name("192.0.2.7") == ""


def test_bounds(names: Names) -> None:
    """A few at a time, however many are asked for; what is too much stays an address."""
    hosts, others = Hosts(names, patience=0.0), set(threading.enumerate())

    hosts.prefetch([f"10.0.{n // 250}.{n % 250}" for n in range(2 * PENDING)])

    eventually(lambda: names.at_work == WORKERS, "all workers are busy")
    assert len(set(threading.enumerate()) - others) == WORKERS
    names.go.set()
    eventually(lambda: len(names.asked) == PENDING, "those that found room were asked")
    assert names.most == WORKERS


def test_a_real_name() -> None:
    """As the machine knows it, from its own files."""
    assert look_up("127.0.0.1") == "localhost"
    assert look_up("no address") == ""


def test_services() -> None:
    """As in services(5); what has none has none."""
    assert (service(443, "tcp"), service(53, "udp")) == ("https", "domain")
    assert (service(0, "tcp"), service(65535, "tcp"), service(443, "gre"), service(70000, "tcp")) == (
        "",
    ) * 4


def test_in_the_log(tmp_path: Path, names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """At first the address, later the name, also in JSON; a name from outside steers no terminal."""
    hosts = Hosts(names, patience=0.001)
    monkeypatch.setattr(logtail, "Hosts", lambda: hosts)
    log = Log(tmp_path)
    log.add(log.rows(1))

    def learn() -> None:
        names.go.set()
        eventually(lambda: hosts.name("192.0.2.7") != "", "the name is known")
        log.add(log.rows(1))

    before, after = Ran(log, "--resolve --no-legend", learn).stdout.splitlines()
    assert "192.0.2.7:https" in before
    assert "host-192.0.2.7:https" in after
    (first, _) = map(json.loads, Ran(log, "--resolve --json --no-follow").stdout.splitlines())
    assert (first["remote"], first["remote_host"]) == ("192.0.2.7", "host-192.0.2.7")

    hostile = Hosts(lambda address: f"\x1b[2J{address}", patience=60.0)
    monkeypatch.setattr(logtail, "Hosts", lambda: hostile)
    assert "\x1b" not in Ran(log, "--resolve --no-follow").stdout


def test_without_resolve_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a thread is started."""
    made: list[Hosts] = []
    monkeypatch.setattr(logtail, "Hosts", lambda: made.append(Hosts()))
    log = Log(tmp_path)
    log.add(log.rows(1))

    assert Ran(log, "--no-follow").code == 0
    assert made == []


def test_the_program_ends_at_once(names: Names) -> None:
    """A name server that does not answer holds nobody: workers end with the program."""
    hosts = Hosts(names, patience=0.0)
    hosts.prefetch(["192.0.2.7"])

    eventually(lambda: bool(names.asked), "it is asked")
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("hosts-")]
    assert workers
    assert all(thread.daemon for thread in workers)
