"""Frames between the daemon and the exporter: what is sent arrives, and what is no frame does no harm."""

from __future__ import annotations

import dataclasses
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from netmond.config import OutputConfig
from netmond.export import encoding, stream
from netmond.export.stream import Ended, StreamError
from netmond.model import (
    Cost,
    Feature,
    FeatureState,
    Gid,
    InterfaceInfo,
    Loss,
    Rdma,
    RdmaPort,
    Snapshot,
    Table,
)
from tests.bus import snapshots
from tests.bus.rdma import with_rdma

DEADLINE = 30.0
MIB = 1 << 20


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = sockets()
    yield ours, theirs
    ours.close()
    theirs.close()


def sockets() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        each.settimeout(DEADLINE)
    return ours, theirs


def sent(snapshot: Snapshot) -> Snapshot:
    """A snapshot at the other end."""
    ours, theirs = sockets()
    with ours, theirs:
        sender = threading.Thread(target=encoding.send_snapshot, args=(ours, snapshot))
        sender.start()
        frame = stream.receive(theirs)
        assert frame is not None
        assert frame.kind == encoding.SNAPSHOT
        arrived = encoding.read_snapshot(theirs, frame)
        sender.join()
        ours.close()
        assert stream.receive(theirs) is None  # nothing is left over
    return arrived


def same_array(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Equal in type, shape and every bit, so that a NaN equals itself."""
    if one.dtype == object:
        return other.dtype == object and one.tolist() == other.tolist()
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def same(one: Any, other: Any) -> bool:
    """Equal in everything, also where there is no == for it."""
    if isinstance(one, np.ndarray):
        return same_array(one, other)
    if isinstance(one, Table):
        assert list(one.columns) == list(other.columns)
        return all(same(one.columns[name], other.columns[name]) for name in one.columns) and all(
            same_array(getattr(one, name), getattr(other, name)) for name in ("counters", "rates")
        )
    if isinstance(one, Rdma | RdmaPort):
        return type(one) is type(other) and not differences(one, other)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def differences(one: Any, other: Any) -> list[str]:
    """Names of fields in which two snapshots, or parts of them, differ; evidence for books is not sent."""
    names = [each.name for each in dataclasses.fields(one) if each.name != "books"]
    return [name for name in names if not same(getattr(one, name), getattr(other, name))]


def test_every_field_arrives() -> None:
    """A snapshot is the same at the other end, but for what no output needs."""
    snapshot = with_rdma(snapshots.small())

    arrived = sent(snapshot)

    assert differences(snapshot, arrived) == []
    assert arrived.books == {}


def test_what_the_tests_would_see() -> None:
    """A single counter of a port, or a queue pair's user, makes a difference."""
    snapshot = with_rdma(snapshots.small())
    rdma = snapshot.rdma
    port = dataclasses.replace(rdma.ports[0], totals=rdma.ports[0].totals + np.uint64(1))
    pairs = dataclasses.replace(
        rdma.queue_pairs, columns={**rdma.queue_pairs.columns, "uid": np.zeros(4, "u4")}
    )
    changes: list[dict[str, Any]] = [
        {"ports": (port, *rdma.ports[1:])},
        {"queue_pairs": pairs},
        {"interval": 0.5},
    ]
    for change in changes:
        other = dataclasses.replace(snapshot, rdma=dataclasses.replace(rdma, **change))
        assert differences(snapshot, other) == ["rdma"]


def test_no_field_is_forgotten(pair: tuple[socket.socket, socket.socket]) -> None:
    """A new field of a snapshot has to be sent, too."""
    encoding.send_snapshot(pair[0], snapshots.small())
    frame = stream.receive(pair[1])

    assert frame is not None
    assert frame.head.keys() == {field.name for field in dataclasses.fields(Snapshot)} - {"books"}


def test_many_flows_and_rows_apart() -> None:
    """More than a socket holds at once, and columns that are not contiguous."""
    snapshot = snapshots.large(100_003)
    columns = {name: column[::2] for name, column in snapshot.flows.columns.items()}
    flows = Table(columns=columns, counters=snapshot.flows.counters[::2], rates=snapshot.flows.rates[::2])
    snapshot = dataclasses.replace(snapshot, flows=flows)

    arrived = sent(snapshot)

    assert len(arrived.flows) == 50_002
    assert differences(snapshot, arrived) == []


TEXT = st.text(st.characters(), max_size=8)  # also lone surrogates: names of cgroups may be any bytes
NUMBER = st.floats(allow_nan=False)
COUNT = st.integers(0, (1 << 63) - 1)
DTYPES = st.sampled_from(["u1", "u2", "u4", "u8", "i4", "i8", "f4", "f8", "?", "S16", "V16", ">u2"])


@st.composite
def tables(draw: st.DrawFn) -> Table:
    rows = draw(st.integers(0, 7))

    def column() -> NDArray[Any]:
        if draw(st.booleans()):
            return np.array([*draw(st.lists(TEXT, min_size=rows, max_size=rows)), None], object)[:-1]
        dtype = np.dtype(draw(DTYPES))
        size = rows * dtype.itemsize
        content = draw(st.binary(min_size=size, max_size=size))
        if dtype == np.bool_:
            content = bytes(byte & 1 for byte in content)
        return np.frombuffer(content, dtype)

    return Table(
        columns={name: column() for name in draw(st.lists(TEXT, max_size=5, unique=True))},
        counters=np.frombuffer(draw(st.binary(min_size=64 * rows, max_size=64 * rows)), "u8").reshape(
            rows, 8
        ),
        rates=np.frombuffer(draw(st.binary(min_size=32 * rows, max_size=32 * rows)), "f8").reshape(rows, 4),
    )


LINKS = st.builds(
    InterfaceInfo, name=TEXT, index=COUNT, kind=TEXT, state=TEXT, monitored=st.booleans(), hook=TEXT,
    reason=TEXT, kernel=st.dictionaries(TEXT, COUNT, max_size=3),
)  # fmt: skip


@st.composite
def ports(draw: st.DrawFn) -> RdmaPort:
    names = draw(st.lists(st.tuples(TEXT, TEXT), max_size=4))
    arrays: dict[str, Any] = {
        name: np.frombuffer(draw(st.binary(min_size=8 * len(names), max_size=8 * len(names))), kind)
        for name, kind in (("values", "u8"), ("totals", "u8"), ("rates", "f8"))
    }
    gids = st.builds(Gid, index=COUNT, address=TEXT, type=TEXT, netdev=TEXT)
    return RdmaPort(
        device=draw(TEXT), port=draw(COUNT), link_layer=draw(TEXT), state=draw(TEXT), speed=draw(COUNT),
        gids=tuple(draw(st.lists(gids, max_size=2))), names=tuple(names), **arrays,
    )  # fmt: skip


RDMA = st.builds(
    Rdma, time=NUMBER, interval=NUMBER, ports=st.lists(ports(), max_size=3).map(tuple),
    queue_pairs=tables(), users=tables(),
)  # fmt: skip
SNAPSHOTS = st.builds(
    Snapshot, tick=COUNT, time=NUMBER, interval=NUMBER, since=NUMBER, started=NUMBER,
    users=tables(), units=tables(), processes=tables(), flows=tables(), interfaces=tables(),
    targets=tables(), host=tables(), unit_names=st.lists(TEXT, max_size=5).map(tuple),
    links=st.lists(LINKS, max_size=3).map(lambda links: {link.index: link for link in links}),
    books=st.just({}),
    features=st.lists(
        st.builds(Feature, name=TEXT, state=st.sampled_from(FeatureState), reason=TEXT), max_size=3
    ).map(tuple),
    losses=st.lists(st.builds(Loss, name=TEXT, count=COUNT, meaning=TEXT), max_size=3).map(tuple),
    cost=st.builds(Cost, cpu_seconds=NUMBER, resident_bytes=COUNT, tick_seconds=NUMBER),
    rdma=RDMA,
)  # fmt: skip


@given(SNAPSHOTS)
def test_any_snapshot_arrives(snapshot: Snapshot) -> None:
    """Whatever the columns are and hold."""
    assert differences(snapshot, sent(snapshot)) == []


def test_setup_arrives(pair: tuple[socket.socket, socket.socket]) -> None:
    """Configuration as it was written, with the file that each key came from."""
    config = OutputConfig(
        name="json", log_dir=Path("/var/log/x"), state_dir=Path("/var/lib/x"),
        options={"address": "tcp:[::1]:23", "flows": False, "interval": 2.5}, origins={"address": "a.toml"},
    )  # fmt: skip
    encoding.send_setup(pair[0], encoding.Setup("debug", {"json": config}))
    frame = stream.receive(pair[1])

    assert frame is not None
    arrived = encoding.read_setup(frame)
    assert arrived == encoding.Setup("debug", {"json": config})
    assert arrived.outputs["json"].origins == config.origins


class TestHostile:
    """Bytes that are no frame, or one too large, raise before memory is taken for them."""

    @staticmethod
    def frame(head: Any, body: bytes = b"", *, head_size: int = -1, body_size: int = -1) -> bytes:
        """A frame with a head, as bytes or for JSON, that may lie about its sizes."""
        text = head if isinstance(head, bytes) else json.dumps(head).encode()
        sizes = [
            real if said < 0 else said for real, said in ((len(text), head_size), (len(body), body_size))
        ]
        return struct.pack("=4sIQ", encoding.SNAPSHOT, *sizes) + text + body

    @staticmethod
    def read(content: bytes) -> object:
        """What a reader of snapshots makes of some bytes, after which the connection is closed."""
        ours, theirs = sockets()
        with ours, theirs:

            def write() -> None:
                with ours, suppress(OSError):
                    ours.sendall(content)

            writer = threading.Thread(target=write)
            writer.start()
            try:
                frame = stream.receive(theirs)
                return frame and encoding.read_snapshot(theirs, frame)
            finally:
                theirs.close()
                writer.join()

    @staticmethod
    def good() -> bytes:
        """A snapshot as bytes."""
        ours, theirs = sockets()
        with ours, theirs:
            encoding.send_snapshot(ours, with_rdma(snapshots.small()))
            ours.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: theirs.recv(MIB), b""))

    @given(st.data())
    def test_truncated(self, data: st.DataObject) -> None:
        """The end of the stream anywhere within a frame is told from one between frames."""
        good = self.good()
        assert isinstance(self.read(good), Snapshot)
        assert self.read(b"") is None

        with pytest.raises(Ended):
            self.read(good[: data.draw(st.integers(1, len(good) - 1))])

    @given(st.binary(min_size=16, max_size=200))
    def test_noise(self, noise: bytes) -> None:
        with pytest.raises(StreamError):
            self.read(noise)

    @given(st.data())
    def test_a_changed_byte(self, data: st.DataObject) -> None:
        """Is understood in another way, or not at all."""
        changed = bytearray(self.good())
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
        with suppress(StreamError):
            self.read(bytes(changed))

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            (frame(b"", head_size=1 << 31), "too large"),
            (frame(b"{}", body_size=1 << 62), "too large"),
            (frame(b"[" * 100_000), "no JSON"),
            (frame(b"\xff\xfe{"), "no JSON"),
            (frame([]), "cannot be understood"),
            (frame(None), "cannot be understood"),
            (frame({"users": {}}), "cannot be understood"),
        ],
    )
    def test_frames(self, content: bytes, complaint: str) -> None:
        with pytest.raises(StreamError, match=complaint):
            self.read(content)

    @pytest.mark.parametrize(
        ("rows", "column", "complaint"),
        [
            (1, "|O", "type"),  # bytes as pointers
            (1, "<M8[s]", "type"),
            (1, "u8,u8", "type"),
            (1, "|V0", "type"),
            (1, "|S99999", "type"),
            (1, "<f1", "understood"),
            (1, 8, "understood"),
            (2, ["one"], "1 texts for 2 rows"),
            (1, [1], "texts"),
            (1, {"a": 1}, "understood"),
            (-1, "<u8", "rows"),
            (True, "<u8", "rows"),
            (1.5, "<u8", "rows"),
            (1 << 70, "<u8", "bytes in"),
            (2, "<u8", "bytes in"),
        ],
    )
    def test_columns(self, rows: Any, column: Any, complaint: str) -> None:
        """What arrays would be made of is checked before any is made."""
        good = self.good()
        _, head_size, body = struct.unpack_from("=4sIQ", good)
        head = json.loads(good[16 : 16 + head_size])
        head["host"] = {"rows": rows, "columns": {"x": column}}
        with pytest.raises(StreamError, match=complaint):
            self.read(self.frame(head, bytes(body)))

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"ports": None}, "understood"),
            ({"users": {"rows": 1, "columns": {}}}, "bytes in"),
            ({"names": [["counters", "a"]] * 6}, "bytes in"),
            ({"names": ["a"]}, "understood"),
            ({"names": 5}, "understood"),
            ({"gids": [{"index": 0}]}, "understood"),
            ({"gids": [{"index": 0, "address": "::", "more": 1}]}, "understood"),
        ],
    )
    def test_rdma(self, change: dict[str, Any], complaint: str) -> None:
        """So are those of ports: a port has as many figures as names."""
        good = self.good()
        _, head_size, body = struct.unpack_from("=4sIQ", good)
        head = json.loads(good[16 : 16 + head_size])
        changed = head["rdma"] if change.keys() <= head["rdma"].keys() else head["rdma"]["ports"][0]
        changed |= change
        with pytest.raises(StreamError, match=complaint):
            self.read(self.frame(head, bytes(body)))

    def test_memory_is_taken_when_it_is_sent(self) -> None:
        """Somebody who announces the largest frame and sends nothing gets no more than addresses."""
        rows = stream.MAX_BODY // 96
        empty = {"rows": 0, "columns": {}}
        tables = dict.fromkeys(("units", "processes", "flows", "interfaces", "targets", "host"), empty)
        head: dict[str, Any] = {
            **dict.fromkeys(("tick", "time", "interval", "since", "started", "read"), 0),
            "users": {"rows": rows, "columns": {}}, **tables,
            "unit_names": [], "links": [], "features": [], "losses": [],
            "cost": {"cpu_seconds": 0, "resident_bytes": 0, "tick_seconds": 0},
            "rdma": {"time": 0, "interval": 0, "ports": [], "queue_pairs": empty, "users": empty},
        }  # fmt: skip
        before = resident()

        with pytest.raises(Ended):
            self.read(self.frame(head, body_size=rows * 96))

        assert resident() - before < 64 * MIB


def resident() -> int:
    """The most memory this process has had, in bytes."""
    (line,) = [
        each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM")
    ]
    return int(line.split()[1]) * 1024


OUTPUTS = {"json": OutputConfig(name="json", log_dir=Path("/"), state_dir=Path("/"))}


class TestStatus:
    """The exporter talks to the world, so the daemon does not take its word for everything."""

    def answered(self, features: tuple[Feature, ...], losses: tuple[Loss, ...]) -> encoding.Status | None:
        ours, theirs = sockets()
        with ours, theirs:
            encoding.send_status(theirs, features, losses)
            return encoding.receive_status(ours, OUTPUTS)

    def test_of_its_own_outputs(self) -> None:
        """Features and losses of the outputs that it runs are taken, of others not."""
        on = Feature(name="output.json", state=FeatureState.DEGRADED, reason="refused")
        loss = Loss(name="output.json.rejected", count=23, meaning="rejected")

        status = self.answered(
            (on, Feature(name="meter", state=FeatureState.OFF)),
            (
                loss,
                dataclasses.replace(loss, name="meter.no-slot"),
                dataclasses.replace(loss, name="output.csv.x"),
            ),
        )

        assert status == encoding.Status({"json": on}, (loss,))

    def test_texts_are_harmless(self) -> None:
        """Control characters and what is no Unicode do not reach messages and the bus; nor does a novel."""
        evil = "\x1b[2Jx\n\udc80" + 5000 * "y"

        status = self.answered((Feature(name="output.json", state=FeatureState.ON, reason=evil),), ())

        assert status is not None
        reason = status.features["json"].reason
        assert reason.startswith("?[2Jx??yyy")
        assert len(reason) == 1000

    @pytest.mark.parametrize("count", [-1, 1 << 63, "x", 1.5, True, None])
    def test_no_count(self, count: Any) -> None:
        with pytest.raises(StreamError):
            self.answered((), (Loss(name="output.json.x", count=count, meaning=""),))

    def test_too_long(self) -> None:
        """An answer is small."""
        many = tuple(
            Loss(name=f"output.json.{number}", count=1, meaning=100 * "x") for number in range(20_000)
        )
        ours, theirs = sockets()
        with ours, theirs:

            def send() -> None:
                with suppress(OSError):
                    encoding.send_status(theirs, (), many)

            sender = threading.Thread(target=send)
            sender.start()
            with pytest.raises(StreamError, match="too large"):
                encoding.receive_status(ours, OUTPUTS)
            ours.close()
            sender.join()

    def test_end(self) -> None:
        """An exporter that has ended has said nothing."""
        ours, theirs = sockets()
        theirs.close()
        with ours:
            assert encoding.receive_status(ours, OUTPUTS) is None
