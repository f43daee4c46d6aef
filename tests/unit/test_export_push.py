"""The push output: when a batch is made, what becomes of it, and what is said about it."""

from __future__ import annotations

import gzip
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from netmond.config import OutputConfig
from netmond.errors import ConfigError
from netmond.export.push import PushOutput
from tests.bus import snapshots
from tests.unit.receiver import Receiver

ROOT = Path(__file__).resolve().parents[2]

New = Callable[..., PushOutput]


@pytest.fixture
def new(receiver: Receiver, tmp_path: Path) -> New:
    """Makes an output that delivers to the receiver, unless told otherwise."""

    def make(**options: object) -> PushOutput:
        keys = {"url": f"http://127.0.0.1:{receiver.port}/in", "instance": "here", "interval": 15, **options}
        output = PushOutput()
        output.init(OutputConfig(name="push", log_dir=tmp_path, state_dir=tmp_path, options=keys))
        return output

    return make


def tick(output: PushOutput, time: float) -> None:
    """A second's snapshot."""
    output.write(replace(snapshots.small(), time=time, interval=1.0))


def times(receiver: Receiver) -> list[float]:
    """Of the batches that arrived, in seconds."""
    found = []
    for _, headers, body in receiver.got:
        assert headers["Content-Encoding"] == "gzip"
        stamps = set(re.findall(rb"^netmond.* (\d+)$", gzip.decompress(body), re.MULTILINE))
        (stamp,) = stamps
        found.append(int(stamp) / 1000)
    return found


def counts(output: PushOutput) -> dict[str, int]:
    return {loss.name.rpartition(".")[2]: loss.count for loss in output.losses()}


def test_when(receiver: Receiver, new: New) -> None:
    """A batch each interval, at the nearest tick, and one at the end; a clock that is set back is no reason
    to wait."""
    output = new()
    for second in range(35):
        tick(output, 1000 + second * 1.0025)
    assert times(receiver) == [1000, 1015.037, 1030.075]
    tick(output, 500)
    tick(output, 501)
    assert times(receiver)[3:] == [500]
    output.close()

    assert times(receiver)[4:] == [501]


def test_an_end_without_a_beginning(receiver: Receiver, new: New) -> None:
    """Without a snapshot there is nothing to say, and what is delivered is not delivered again."""
    output = new()
    output.close()
    output.close()
    assert receiver.got == []
    output = new()
    tick(output, 1000)
    output.close()
    output.close()

    assert times(receiver) == [1000]


def test_failures_are_told_once(receiver: Receiver, new: New, caplog: pytest.LogCaptureFixture) -> None:
    """Many attempts, one line; the state names address and remedy; what waits is on the disk."""
    receiver.status = 503
    output = new()
    with caplog.at_level(logging.INFO):
        for step in range(10):
            tick(output, 1000 + 15 * step)
    where = f"http://127.0.0.1:{receiver.port}/in"

    assert output.limitation().startswith(f"{where} answers 503 Service Unavailable")
    assert len(caplog.records) == 1
    assert f"Output push: {where} answers 503" in caplog.text
    assert counts(output)["rejected"] == counts(output)["undelivered"] == 0
    receiver.status = 204
    output.close()
    output = new()
    tick(output, 1150)
    assert times(receiver)[-11:] == [*range(1000, 1150, 15), 1150]
    assert output.limitation() == ""


def test_rejections_are_told_once(receiver: Receiver, new: New, caplog: pytest.LogCaptureFixture) -> None:
    """Each is counted, the first is told; nothing waits, and counts outlast a restart of the output."""
    receiver.status, receiver.body = 400, b"cannot parse"
    output = new()
    with caplog.at_level(logging.INFO):
        for step in range(10):
            tick(output, 1000 + 15 * step)

    assert len(caplog.records) == 1
    assert "answers 400 Bad Request: cannot parse" in caplog.text
    assert counts(output)["rejected"] == 10


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("", "there is no url"),
        ("http://vm:8428/api/v1/write", "remote write, which netmond does not speak"),
        ("http://:80/", "names no host"),
        ("http://[::1/", "the URL is not valid"),
    ],
)
def test_bad_configuration(new: New, url: str, what: str) -> None:
    """Said so, in a line with the remedy; closing what did not open is no error."""
    with pytest.raises(ConfigError, match=what):
        new(url=url)
    PushOutput().close()


@pytest.mark.parametrize("name", ["push", "prometheus"])
def test_without_the_library(name: str) -> None:
    """The state of the output says what to install."""
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from netmond.outputs import protocol\n"
        f"try: protocol.find('{name}')\n"
        "except protocol.ConfigError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.startswith(f"output {name} cannot be loaded: ")
    assert "install python3-prometheus-client" in done.stdout
