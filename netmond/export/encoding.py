"""What passes between the daemon and the exporter, as frames: configuration, snapshots, and the answers.

A snapshot arrives equal in every field but `books`, the evidence behind an interface's figures, which no
output needs. Columns of text are lists in the head, all others arrays.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from netmond.config import OutputConfig
from netmond.config_table import LOG_LEVELS
from netmond.export import stream, tables
from netmond.export.stream import Frame, StreamError
from netmond.model import Cost, Feature, FeatureState, InterfaceInfo, Loss, Snapshot

SETUP, SNAPSHOT, STATUS = b"CONF", b"SNAP", b"STAT"

_TABLES = ("users", "units", "processes", "flows", "interfaces", "targets", "host")
_NUMBERS = ("tick", "time", "interval", "since", "started", "read")

#: Bytes of an answer, and characters of a text in it: the exporter talks to the whole world.
_MAX_STATUS, _MAX_TEXT = 1 << 20, 1000


@dataclass(frozen=True, slots=True)
class Setup:
    """What the exporter shall do: the outputs that shall run, by name."""

    log_level: str
    outputs: Mapping[str, OutputConfig]


@dataclass(frozen=True, slots=True)
class Status:
    """How the exporter's outputs are."""

    features: Mapping[str, Feature] = field(default_factory=dict)
    losses: tuple[Loss, ...] = ()


@contextmanager
def _understood(kind: str) -> Iterator[None]:
    """What is missing in a frame or of another type than expected is a StreamError."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise StreamError(f"a {kind} cannot be understood: {type(error).__name__}: {error}") from None


# -- configuration ---------------------------------------------------------------------------------------


def send_setup(connection: socket.socket, setup: Setup) -> None:
    outputs = {
        name: {
            "log_dir": str(config.log_dir), "state_dir": str(config.state_dir),
            "options": dict(config.options), "origins": dict(config.origins),
        }
        for name, config in setup.outputs.items()
    }  # fmt: skip
    stream.send(connection, SETUP, {"log_level": setup.log_level, "outputs": outputs})


def read_setup(frame: Frame) -> Setup:
    with _understood("configuration"):
        outputs = {
            name: OutputConfig(
                name=name, log_dir=Path(given["log_dir"]), state_dir=Path(given["state_dir"]),
                options=given["options"], origins=given["origins"],
            )
            for name, given in frame.head["outputs"].items()
        }  # fmt: skip
        if frame.body or frame.head["log_level"] not in LOG_LEVELS:
            raise ValueError(f"log level {frame.head['log_level']!r}, {frame.body} bytes of arrays")
        return Setup(frame.head["log_level"], outputs)


# -- snapshots -------------------------------------------------------------------------------------------


def send_snapshot(connection: socket.socket, snapshot: Snapshot) -> None:
    arrays: list[NDArray[Any]] = []
    head: dict[str, Any] = {name: getattr(snapshot, name) for name in _NUMBERS}
    for name in _TABLES:
        head[name] = tables.announce(getattr(snapshot, name), arrays)
    head |= {
        "rdma": tables.announce_rdma(snapshot.rdma, arrays),
        "unit_names": snapshot.unit_names,
        "links": [asdict(link) for link in snapshot.links.values()],
        "features": [asdict(feature) for feature in snapshot.features],
        "losses": [asdict(loss) for loss in snapshot.losses],
        "cost": asdict(snapshot.cost),
    }
    stream.send(connection, SNAPSHOT, head, arrays)


def read_snapshot(connection: socket.socket, frame: Frame) -> Snapshot:
    """Reads the arrays that follow the frame's beginning; all of them are checked before any is made."""
    with _understood("snapshot"):
        head = frame.head
        shapes = [tables.TableShape.of(head[name]) for name in _TABLES]
        rdma = tables.RdmaShape.of(head["rdma"])
        announced = sum(shape.size for shape in shapes) + rdma.size
        if announced != frame.body:
            raise ValueError(f"columns of {announced} bytes in {frame.body}")
        # Before the arrays are read: what follows must not be left half read.
        rest: dict[str, Any] = {name: head[name] for name in _NUMBERS}
        rest |= {
            "unit_names": tuple(head["unit_names"]),
            "links": {link["index"]: InterfaceInfo(**link) for link in head["links"]},
            "features": tuple(_feature(feature) for feature in head["features"]),
            "losses": tuple(Loss(**loss) for loss in head["losses"]),
            "cost": Cost(**head["cost"]),
        }

    def fill(array: NDArray[Any]) -> None:
        stream.fill(connection, array)

    for name, shape in zip(_TABLES, shapes, strict=True):
        rest[name] = shape.read(fill)
    return Snapshot(**rest, rdma=rdma.read(fill))


def _feature(head: Mapping[str, Any]) -> Feature:
    return Feature(name=head["name"], state=FeatureState(head["state"]), reason=head["reason"])


# -- answers ---------------------------------------------------------------------------------------------


def send_status(connection: socket.socket, features: tuple[Feature, ...], losses: tuple[Loss, ...]) -> None:
    head = {"features": [asdict(each) for each in features], "losses": [asdict(each) for each in losses]}
    stream.send(connection, STATUS, head)


def receive_status(connection: socket.socket, outputs: Mapping[str, OutputConfig]) -> Status | None:
    """The exporter's answer, as far as it is about these outputs; None if it has closed the connection."""
    frame = stream.receive(connection, head=_MAX_STATUS, body=0)
    if frame is None:
        return None
    with _understood("status"):
        if frame.kind != STATUS:
            raise ValueError(f"a frame of kind {frame.kind!r}")
        features = {}
        for head in frame.head["features"]:
            name = str(head["name"]).removeprefix("output.")
            if name in outputs:
                features[name] = Feature(
                    name=f"output.{name}", state=FeatureState(head["state"]), reason=_text(head["reason"])
                )
        losses = tuple(
            Loss(name=_text(head["name"]), count=_count(head["count"]), meaning=_text(head["meaning"]))
            for head in frame.head["losses"]
            if re.fullmatch(r"output\.([^.]+)\.[a-z0-9-]{1,40}", str(head["name"]), re.ASCII)
            and head["name"].split(".")[1] in outputs
        )
    return Status(features, losses)


def _text(value: Any) -> str:
    """Text in one line of bounded length, that can go wherever the daemon's own goes."""
    return "".join(c if c.isprintable() else "?" for c in str(value)[:_MAX_TEXT])


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"a count of {value!r}")
    return value
