"""RDMA netlink: answers recorded from Linux 6.1 with soft-RoCE, made-up ones of mlx5, and damaged ones."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netmond.errors import KernelError
from netmond.kernel import netlink, rdma_netlink
from netmond.kernel.rdma_netlink import BoundCounter, QueuePair
from tests.unit import rdma_answers
from tests.unit.rdma_answers import Recorded

# RDMA_NLDEV_ATTR_* (include/uapi/rdma/rdma_netlink.h)
NAME, PORT, QPS, QP, QPN, TYPE, STATE, PID = 2, 3, 19, 20, 21, 26, 27, 28
BOUND, BOUND_ENTRY, BOUND_ID = 77, 78, 79
COUNTERS, COUNTER, COUNTER_NAME, COUNTER_VALUE = 80, 81, 82, 83
NESTED = 0x8000


class Kernel:
    """Stands in for the netlink socket: gives recorded answers to the recorded request, and to no other."""

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        self._answers = iter(recorded.answers)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None: ...

    def settimeout(self, seconds: float) -> None: ...

    def bind(self, address: tuple[int, int]) -> None: ...

    def send(self, request: bytes) -> int:
        assert request == self._recorded.request
        return len(request)

    def recv(self, size: int) -> bytes:
        return next(self._answers)


def given_answers(monkeypatch: pytest.MonkeyPatch, recorded: Recorded) -> None:
    monkeypatch.setattr("netmond.kernel.netlink.socket.socket", lambda *_: Kernel(recorded))


def attribute(kind: int, value: bytes) -> bytes:
    """struct nlattr, padded to 4 bytes."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


class TestRecorded:
    def test_devices(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are numbered from 0 on."""
        given_answers(monkeypatch, rdma_answers.DEVICES)

        assert rdma_netlink.devices() == {"rxe0": 0, "rxe1": 1}

    def test_queue_pairs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One of a program, by its process, and the kernel's own, by its module."""
        given_answers(monkeypatch, rdma_answers.QUEUE_PAIRS)

        assert rdma_netlink.queue_pairs(0) == [
            QueuePair("rxe0", 1, 0x13, 0x13, "RC", "RTS", pid=998, kernel=""),
            QueuePair("rxe0", 1, 1, 0, "GSI", "RTS", pid=0, kernel="ib_core"),
        ]

    def test_statistics(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A port's hw_counters, with 64 bits each."""
        given_answers(monkeypatch, rdma_answers.STATISTICS)

        values = rdma_netlink.statistics(0, 1)

        assert len(values) == 15
        assert (values["sent_pkts"], values["rcvd_pkts"], values["send_err"]) == (83_989, 2_792, 0)

    def test_no_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that went meanwhile is an error, with the kernel's reason."""
        _, answers = rdma_answers.NO_DEVICE
        given_answers(monkeypatch, Recorded(statistics_request(7, 1), answers))

        with pytest.raises(KernelError, match="Invalid argument"):
            rdma_netlink.statistics(7, 1)

    def test_no_counters_of_queue_pairs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A driver that has none ends the dump with an error, which means: none."""
        _, answers = rdma_answers.NO_COUNTERS
        request = header(0x301, 17) + number(1, 0) + number(75, QPS)
        given_answers(monkeypatch, Recorded(sized(request), answers))

        assert rdma_netlink.bound_counters(0) == []


def header(flags: int, command: int) -> bytes:
    """struct nlmsghdr of a request to NLDEV."""
    return struct.pack("=IHHII", 16, (5 << 10) + command, flags, 1, 0)


def sized(request: bytes) -> bytes:
    return struct.pack("=I", len(request)) + request[4:]


def statistics_request(device: int, port: int) -> bytes:
    return sized(header(1, 17) + number(1, device) + number(PORT, port))


class TestMadeUp:
    def test_bound_counters(self) -> None:
        """Counters of their own that two queue pairs of a process have (``rdma statistic qp show``)."""
        values = {"rx_write_requests": 3, "out_of_sequence": 1 << 40}
        answer = attribute(NAME, b"mlx5_0\0") + attribute(BOUND, bound(2, 5, (0x10, 0x11), 42, values))

        assert list(rdma_netlink.read_bound_counters(answer)) == [
            BoundCounter("mlx5_0", 2, 5, (0x10, 0x11), 42, values)
        ]

    def test_newer_kernels(self) -> None:
        """A type and a state without a name stay numbers; what is not told is 0 or empty."""
        entry = number(QPN, 7) + attribute(TYPE, b"\x63") + attribute(STATE, b"\x09")
        answer = attribute(NAME, b"mlx5_0\0") + attribute(QPS, attribute(QP, entry))

        assert list(rdma_netlink.read_queue_pairs(answer)) == [
            QueuePair("mlx5_0", 0, 7, 0, "99", "9", pid=0, kernel="")
        ]

    def test_nested_flag(self) -> None:
        """Tables may be marked as such, or not: kernels differ."""
        entry = attribute(QP | NESTED, number(QPN, 7) + attribute(TYPE, b"\2") + attribute(STATE, b"\3"))

        (pair,) = rdma_netlink.read_queue_pairs(attribute(QPS | NESTED, entry))

        assert (pair.qpn, pair.type, pair.state) == (7, "RC", "RTS")

    @pytest.mark.parametrize("answer", [b"", attribute(NAME, b"mlx5_0\0"), attribute(QPS, b"")])
    def test_nothing(self, answer: bytes) -> None:
        """A device without queue pairs has an empty table, or none."""
        assert list(rdma_netlink.read_queue_pairs(answer)) == []
        assert list(rdma_netlink.read_bound_counters(answer)) == []


def bound(port: int, index: int, qpns: tuple[int, ...], pid: int, values: Mapping[str, int]) -> bytes:
    pairs = b"".join(attribute(QP, number(QPN, qpn)) for qpn in qpns)
    table = b"".join(
        attribute(
            COUNTER,
            attribute(COUNTER_NAME, name.encode() + b"\0")
            + attribute(COUNTER_VALUE, struct.pack("=Q", value)),
        )
        for name, value in values.items()
    )
    head = number(PORT, port) + number(BOUND_ID, index) + number(PID, pid)
    return attribute(BOUND_ENTRY, head + attribute(QPS, pairs) + attribute(COUNTERS | NESTED, table))


class TestDamaged:
    @given(st.binary(max_size=300))
    def test_anything(self, data: bytes) -> None:
        """Whatever the bytes are, they are read without an error."""
        list(rdma_netlink.read_queue_pairs(data))
        list(rdma_netlink.read_bound_counters(data))
        rdma_netlink.read_values(data)

    @given(st.data())
    def test_recordings(self, data: st.DataObject) -> None:
        """So are the kernel's own, with some bytes changed or cut off: numbers have 64 bits at most."""
        recorded = data.draw(st.sampled_from([rdma_answers.QUEUE_PAIRS, rdma_answers.STATISTICS]))
        message = recorded.answers[0]
        at, noise = data.draw(st.integers(0, len(message))), data.draw(st.binary(max_size=8))
        damaged = (message[:at] + noise + message[at + len(noise) :])[
            : data.draw(st.integers(0, len(message)))
        ]

        for _, body in netlink.messages(damaged):
            numbers = [pair.qpn for pair in rdma_netlink.read_queue_pairs(body)]
            numbers += rdma_netlink.read_values(netlink.attributes(body).get(COUNTERS, b"")).values()
            assert all(0 <= each < 1 << 64 for each in numbers)

    def test_an_error_without_its_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A cut-off error is an error all the same."""
        cut_off = struct.pack("=IHHII", 18, 2, 0, 1, 0) + b"\xff\xff\0\0"
        given_answers(monkeypatch, Recorded(rdma_answers.DEVICES.request, (cut_off,)))

        with pytest.raises(KernelError):
            rdma_netlink.devices()
