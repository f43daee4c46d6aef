"""Real time series databases, each an own instance on a free port of loopback, asked over HTTP."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tests.export.peers import free_port
from tests.kernel.deadline import DEADLINE, eventually

#: Labels, the name among them, as something that can be compared.
Labels = frozenset[tuple[str, str]]


def fetched(url: str, space: Sequence[str]) -> bytes:
    """What is at a URL in a network namespace; URLError."""
    read = (
        "import sys, urllib.request as r; sys.stdout.buffer.write(r.urlopen(sys.argv[1], timeout=20).read())"
    )
    done = subprocess.run([*space, sys.executable, "-c", read, url], capture_output=True, check=False)
    if done.returncode != 0:
        raise URLError(done.stderr.decode().strip().rpartition("\n")[2])
    return done.stdout


class Database:
    """One instance. It can be stopped and started again with the same data at the same port."""

    program = ""
    package = ""
    health = ""

    def __init__(self, directory: Path, *, space: Sequence[str] = ()) -> None:
        """space: the command that runs others in a network namespace; it is asked in there, too."""
        if shutil.which(self.program) is None:
            pytest.skip(f"needs {self.program} (Debian package {self.package})")
        self.directory = directory
        self._space = space
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def arguments(self) -> Sequence[str]:
        raise NotImplementedError

    def start(self) -> None:
        with (self.directory / f"{self.program}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._space, self.program, *self.arguments()], stdout=log, stderr=log
            )
        try:
            eventually(self._answers, f"{self.program} on port {self.port}")
        except AssertionError:
            self.stop()
            raise

    def _answers(self) -> bool:
        try:
            self.get(self.health)
        except (URLError, ConnectionError):  # not yet
            return False
        return True

    def stop(self) -> None:
        """As the service manager does: it writes what it has to the disk."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(DEADLINE)
            self._process = None

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def get(self, path: str, **parameters: str) -> bytes:
        url = f"{self.url}{path}?{urlencode(parameters)}"
        if self._space:
            return fetched(url, self._space)
        with urlopen(url, timeout=DEADLINE) as response:
            body: bytes = response.read()
            return body

    def query(self, expression: str, **parameters: str) -> dict[Labels, float]:
        """The values of an instant query by their labels."""
        answer = json.loads(self.get("/api/v1/query", query=expression, **parameters))
        assert answer["status"] == "success"
        return {frozenset(row["metric"].items()): float(row["value"][1]) for row in answer["data"]["result"]}

    def value(self, expression: str, **parameters: str) -> float | None:
        """The only value of a query, None if there is none."""
        values = list(self.query(expression, **parameters).values())
        assert len(values) <= 1
        return values[0] if values else None


class VictoriaMetrics(Database):
    """victoria-metrics, the single-node version."""

    program = package = "victoria-metrics"
    health = "/health"

    def __init__(self, directory: Path, *extra: str, space: Sequence[str] = ()) -> None:
        super().__init__(directory, space=space)
        self._extra = extra

    def _answers(self) -> bool:
        if not self._extra:
            return super()._answers()
        with socket.socket() as probe:  # it may want TLS and a password
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def arguments(self) -> Sequence[str]:
        return [
            *self._extra,
            f"-httpListenAddr=127.0.0.1:{self.port}", f"-storageDataPath={self.directory / 'vm'}",
            "-search.latencyOffset=0s", "-search.disableCache", "-memory.allowedBytes=64MB",
        ]  # fmt: skip

    def query(self, expression: str, **parameters: str) -> dict[Labels, float]:
        self._flush()
        return super().query(expression, **parameters)

    def _flush(self) -> None:
        """What came just now is in no answer before that."""
        self.get("/internal/force_flush")

    def samples(self, match: str) -> dict[Labels, list[tuple[int, float]]]:
        """All samples there are, as they are stored: time in milliseconds, and value."""
        self._flush()
        lines = self.get("/api/v1/export", **{"match[]": match}).splitlines()
        return {
            frozenset(row["metric"].items()): list(zip(row["timestamps"], row["values"], strict=True))
            for row in map(json.loads, lines)
        }


class VmAgent(Database):
    """vmagent, which takes what VictoriaMetrics takes and passes it on by remote write."""

    program, package = "vmagent", "victoria-metrics"
    health = "/health"

    def __init__(self, directory: Path, remote_write: str) -> None:
        super().__init__(directory)
        self._remote_write = remote_write

    def arguments(self) -> Sequence[str]:
        return [
            f"-httpListenAddr=127.0.0.1:{self.port}", f"-remoteWrite.url={self._remote_write}",
            f"-remoteWrite.tmpDataPath={self.directory / 'vmagent'}",
        ]  # fmt: skip


class Prometheus(Database):
    """prometheus, which scrapes ports of loopback several times a second; their label instance is given."""

    program = package = "prometheus"
    health = "/-/ready"

    def __init__(
        self,
        directory: Path,
        ports: Mapping[str, int],
        rules: Sequence[Path] = (),
        *,
        space: Sequence[str] = (),
    ) -> None:
        super().__init__(directory, space=space)
        targets = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}} for name, port in ports.items()
        ]
        self.config = directory / "prometheus.yml"
        self.config.write_text(
            "global: {scrape_interval: 100ms, evaluation_interval: 100ms}\n"
            f"rule_files: {json.dumps([str(path) for path in rules])}\n"
            "scrape_configs:\n"
            "- job_name: netmond\n"
            f"  static_configs: {json.dumps(targets)}\n"
        )

    def arguments(self) -> Sequence[str]:
        return [
            f"--config.file={self.config}", f"--storage.tsdb.path={self.directory / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn",
            "--web.enable-remote-write-receiver",
        ]  # fmt: skip
