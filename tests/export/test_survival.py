"""A real exporter that is killed, and a listener that dies and comes back: nothing is lost or doubled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from netmond.config import OutputConfig, defaults
from netmond.errors import NetmondError
from netmond.export.address import Address
from netmond.export.encoding import Setup
from netmond.export.progress import load
from netmond.model import Snapshot
from netmond.outputs.exported import Link
from tests.export.peers import Listener, free_port
from tests.export.test_json import BATCH, assert_complete
from tests.kernel.deadline import eventually
from tests.unit.history import History


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener(Address("tcp", "127.0.0.1", free_port())) as listener:
        yield listener


class Daemon:
    """The daemon's side: sends snapshots to a child, and starts another one when it has ended."""

    def __init__(self, config: OutputConfig) -> None:
        self._config = config
        self._link = Link({})
        self._link.setup = Setup("info", {"json": config})
        self._link.init(config)

    def write(self, snapshot: Snapshot) -> None:
        try:
            self._link.write(snapshot)
        except NetmondError:
            self.start_again()
            self._link.write(snapshot)

    def kill_exporter(self) -> None:
        assert self._link._child
        self._link._child.kill()
        self._link._child.wait()

    def start_again(self) -> None:
        self._link.close()
        self._link.init(self._config)

    def close(self) -> None:
        self._link.close()


@pytest.fixture
def daemon(listener: Listener, tmp_path: Path) -> Iterator[Daemon]:
    options: dict[str, Any] = {"address": str(listener.address)}
    daemon = Daemon(replace(defaults().output("json"), state_dir=tmp_path, options=options))
    yield daemon
    daemon.close()


def test_exporter_killed(listener: Listener, daemon: Daemon, tmp_path: Path) -> None:
    """The next one goes on where the killed one was."""
    listener.start()
    history, lines = History(), []
    for _ in range(3):
        daemon.write(history.snapshot(grow=3))
        lines += listener.take(BATCH)
        eventually(lambda: not os.listdir(tmp_path / "json" / "spool"))  # it knows that all was taken
        daemon.kill_exporter()
    daemon.write(history.snapshot(grow=5))
    lines += listener.take(BATCH)
    daemon.close()

    assert_complete(of_traffic(lines), history)
    assert listener.is_empty()


def test_both_killed(listener: Listener, daemon: Daemon, tmp_path: Path) -> None:
    """What a killed exporter could not deliver is delivered by the next one, before what comes later."""
    listener.start()
    history, lines = History(), []
    daemon.write(history.snapshot(grow=3))
    lines += listener.take(BATCH)
    listener.stop()
    for _ in range(3):
        daemon.write(history.snapshot(grow=3))
        eventually(lambda: told(tmp_path) == history.now)
        daemon.kill_exporter()
    listener.start()
    daemon.write(history.snapshot(grow=3))
    lines += listener.take(4 * BATCH)
    daemon.close()

    assert_complete(of_traffic(lines), history)
    assert listener.is_empty()
    assert os.listdir(tmp_path / "json" / "spool") == []


def test_clean_restart(listener: Listener, daemon: Daemon) -> None:
    """An exporter that is stopped tells what is left; the next one repeats nothing of it."""
    listener.start()
    history, lines = History(), []
    for _ in range(3):
        daemon.write(history.snapshot(grow=3, seconds=1))
        daemon.start_again()
        lines += listener.take(BATCH)
    daemon.close()

    assert_complete(of_traffic(lines), history)
    assert listener.is_empty()


def told(directory: Path) -> float:
    """The time of the last batch that is kept."""
    progress = load(directory / "json" / "told")
    assert progress
    return progress.time


def of_traffic(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines about traffic; features are told by each exporter anew."""
    return [line for line in lines if line["type"] not in ("feature", "loss")]
