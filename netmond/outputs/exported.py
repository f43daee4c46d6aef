"""The outputs that run in the exporter, as the daemon sees them: one worker that feeds its process."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

from netmond.config import OutputConfig, read_options
from netmond.errors import Unavailable
from netmond.export.encoding import Setup, Status, receive_status, send_setup, send_snapshot
from netmond.export.options import OPTIONS
from netmond.export.stream import StreamError
from netmond.model import Feature, FeatureState, Loss, Snapshot
from netmond.outputs import protocol
from netmond.outputs.runner import end
from netmond.outputs.worker import DISABLED, Worker

#: The socket at which the service manager starts the exporter; without one it is a child of the daemon.
SOCKET_VARIABLE = "NETMOND_EXPORT_SOCKET"

#: Seconds for the exporter to take a snapshot and answer.
_PATIENCE = 10.0
#: Seconds for a child to deliver what it has when the connection is closed.
_FAREWELL = 4.0


class Exporter:
    """The exported outputs. Belongs to the event loop; only `close` waits for anything."""

    def __init__(
        self, environ: Mapping[str, str] = os.environ, *,
        new_worker: Callable[[str, protocol.Output], Worker] = Worker,
    ) -> None:  # fmt: skip
        self._link = Link(environ)
        self._worker = new_worker(Link.name, self._link)
        self._outputs: Mapping[str, OutputConfig] = {}
        #: Seconds between two snapshots that the outputs need; infinite if none needs any.
        self.period = math.inf

    def apply(self, outputs: Mapping[str, OutputConfig], log_level: str) -> None:
        """Have these run, if enabled. What is unchanged runs on; without any the process ends."""
        self._outputs = outputs
        enabled = {
            name: replace(config, state_dir=config.state_dir / "export")
            for name, config in outputs.items()
            if config.enabled
        }
        self._link.setup = Setup(log_level, enabled)
        self.period = min((_period(name, config) for name, config in enabled.items()), default=math.inf)
        if bool(enabled) != bool(self._worker.config):  # what the link itself needs is the same for all
            self._worker.configure(next(iter(enabled.values()), None))

    def publish(self, snapshot: Snapshot) -> None:
        """Hand over a snapshot. Never blocks."""
        self._worker.publish(snapshot)

    def losses(self) -> tuple[Loss, ...]:
        """What was lost on the way to the exporter, and what its outputs have lost."""
        way = (
            replace(
                loss,
                name=loss.name.removeprefix("output."),
                meaning=f"on the way to the exporter: {loss.meaning}",
            )
            for loss in self._worker.losses()
        )
        return (*way, *self._link.status.losses)

    def features(self) -> tuple[Feature, ...]:
        """One line for every output: as the exporter says, or what is wrong with the exporter."""
        way, known = self._worker.feature(), self._link.status.features
        features = []
        for name, config in self._outputs.items():
            feature = Feature(name=f"output.{name}", state=FeatureState.OFF, reason=DISABLED)
            if config.enabled:
                feature = replace(way, name=feature.name)
                if way.state is FeatureState.ON:
                    feature = known.get(name, feature)
            features.append(feature)
        return tuple(features)

    async def close(self, seconds: float) -> None:
        """Deliver what waits, and let the exporter end."""
        await end([self._worker], seconds)


class Link:
    """The connection to the exporter as an output: each snapshot is sent, and answered with a status."""

    name = "export"

    def __init__(self, environ: Mapping[str, str]) -> None:
        #: What the exporter shall do. Replaced by the event loop; sent with the next snapshot.
        self.setup = Setup("info", {})
        #: The last answer; its losses are those of all exporters there were. Read by the event loop.
        self.status = Status()
        self._environ = environ
        self._connection: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._sent: Setup | None = None
        self._past: tuple[Loss, ...] = ()

    def init(self, config: OutputConfig) -> None:
        """Connects to the exporter, which starts it."""
        path = self._environ.get(SOCKET_VARIABLE)
        self._connection = _connected(path) if path else self._spawned()
        self._connection.settimeout(_PATIENCE)
        self._sent = None
        self._past = self.status.losses
        self.status = Status(losses=self._past)

    def write(self, snapshot: Snapshot) -> None:
        """Sends a snapshot, and what the exporter shall do with it if that has changed."""
        try:
            self._exchange(snapshot)
        except TimeoutError:
            raise Unavailable(f"the exporter does not answer within {_PATIENCE:g} s") from None
        except (OSError, StreamError) as error:
            raise Unavailable(f"the connection to the exporter broke: {error}") from None

    def close(self) -> None:
        """Closes the connection, at which the exporter delivers what it has and ends."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._child is not None:
            try:
                self._child.wait(_FAREWELL)
            except subprocess.TimeoutExpired:  # it hangs
                self._child.kill()
                self._child.wait()
            self._child = None

    def _spawned(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        # What the service manager wants to hear, it wants to hear from us.
        environ = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
        with theirs:
            command = [sys.executable, "-m", "netmond.export"]
            self._child = subprocess.Popen(command, stdin=theirs.fileno(), env=environ)
        return ours

    def _exchange(self, snapshot: Snapshot) -> None:
        assert self._connection is not None
        setup = self.setup
        if self._sent is not setup:
            send_setup(self._connection, setup)
            self._sent = setup
        send_snapshot(self._connection, snapshot)
        status = receive_status(self._connection, setup.outputs)
        if status is None:
            raise Unavailable("the exporter has ended, see its messages in the journal")
        self.status = Status(status.features, _added(self._past, status.losses))


def _period(name: str, config: OutputConfig) -> float:
    """How often an output needs a snapshot; one that is asked by others is content with what there is."""
    return float(read_options(OPTIONS.get(name, ()), config)[0].get("interval", math.inf))


def _connected(path: str) -> socket.socket:
    """Only root can have made a socket in /run, so nobody else is at its other end."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_PATIENCE)
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise Unavailable(
            f"no exporter at {path}: {error.strerror}; systemctl restart netmond-export.socket"
        ) from None
    return connection


def _added(past: tuple[Loss, ...], losses: tuple[Loss, ...]) -> tuple[Loss, ...]:
    """Losses with those of earlier exporters."""
    total = {loss.name: loss for loss in past}
    for loss in losses:
        before = total[loss.name].count if loss.name in total else 0
        total[loss.name] = replace(loss, count=loss.count + before)
    return tuple(total.values())
