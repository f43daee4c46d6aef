"""Real traffic, told by a real daemon in lines of JSON and syslog messages: their sums are the daemon's."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from netmond.export.address import Address
from tests.export.peers import Listener, Rsyslogd
from tests.kernel.capture import Figures
from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import eventually
from tests.kernel.test_export import exporter, gone
from tests.kernel.test_survival import lasting


class Told:
    """What both were told of the user, added up by the kind of row; a row that comes twice counts once."""

    def __init__(self, listener: Listener, rsyslogd: Rsyslogd) -> None:
        self.listener, self.rsyslogd = listener, rsyslogd
        self._seen: set[str] = set()
        self._sums: dict[str, Counter[str]] = {kind: Counter() for kind in ("user", "flow", "message")}

    def sums(self) -> dict[str, Figures]:
        for line in self.listener.ready():
            if line["type"] in self._sums:
                self._add(line["type"], line, line)
        for message in self.rsyslogd.ready():
            self._add("message", message, message["data"]["netmond@32473"])
        names = Figures._fields
        return {kind: Figures(**{name: sum_[name] for name in names}) for kind, sum_ in self._sums.items()}

    def _add(self, kind: str, whole: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        text = json.dumps(whole)
        if int(row.get("uid", -1)) == USER and text not in self._seen:
            self._seen.add(text)
            self._sums[kind].update({name: int(row[f"delta_{name}"]) for name in Figures._fields})


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    address = Address("unix", path=str(tmp_path / "lines"))
    with Listener(address) as listener, Rsyslogd(tmp_path / "rsyslog") as rsyslogd:
        listener.start()
        yield Told(listener, rsyslogd)


def test_sums(scene: Scene, told: Told) -> None:
    """Over an outage of both in which the daemon dies: users, flows and messages add up to its totals."""
    netmond = lasting(
        scene,
        **{
            "output.json.address": str(told.listener.address),
            "output.json.interval": 1,
            "output.syslog.address": str(told.rsyslogd.addresses["unix"]),
            "output.syslog.interval": 1,
        },
    )
    netmond.start()

    def everything_is_told() -> None:
        figures = netmond.user(USER)
        eventually(lambda: set(told.sums().values()) == {figures}, f"{figures} are told")

    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="a", peer=["10.23.1.2", port])
    user.do("exchange", name="a", count=23, size=101)
    everything_is_told()

    told.listener.stop()
    told.rsyslogd.stop()
    user.do("exchange", name="a", count=29, size=103)
    for name in ("json", "syslog"):
        eventually(lambda: "there: start it" in netmond.feature(f"output.{name}")[1], f"{name} says so")  # noqa: B023
    pid = exporter(netmond)
    netmond.stop(signal.SIGKILL)
    eventually(gone(pid), "the exporter has kept what is not delivered")
    user.do("exchange", name="a", count=31, size=107)
    netmond.start()
    user.do("exchange", name="a", count=37, size=109)
    told.listener.start()
    told.rsyslogd.start()
    everything_is_told()

    assert netmond.user(USER).out_packets == 23 + 29 + 31 + 37
    for name in ("json", "syslog"):
        eventually(lambda: netmond.feature(f"output.{name}") == ("on", ""), f"{name} works")  # noqa: B023
        assert netmond.loss(f"output.{name}.undelivered") == netmond.loss(f"output.{name}.rejected") == 0
