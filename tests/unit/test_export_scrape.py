"""The server of the scrape endpoint: it answers as HTTP wants, and nobody can occupy it."""

from __future__ import annotations

import gzip
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from email.message import Message
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

import pytest

from netmond.config import OutputConfig
from netmond.errors import Unavailable
from netmond.export.address import parse
from netmond.export.prometheus import PrometheusOutput, listen
from netmond.export.scrape import CONNECTIONS, Answer, ScrapeServer
from tests.bus import snapshots
from tests.export.peers import free_port

DEADLINE = 20.0

#: More than any buffer between two sockets.
PAGE = b"figures\n" * (1 << 21)


class Serving:
    """A server of one page on a free port, and ways to talk to it."""

    def __init__(self, *, deadline: float = DEADLINE) -> None:
        listener = socket.create_server(("127.0.0.1", free_port()))
        self.where = listener.getsockname()
        self.made = 0
        self.server = ScrapeServer(listener, self._render, deadline=deadline)

    def _render(self, headers: Message) -> Answer:
        self.made += 1
        return Answer(HTTPStatus.OK, PAGE)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.where, timeout=DEADLINE)

    def ask(self, method: str = "GET", target: str = "/metrics") -> tuple[int, bytes, dict[str, str]]:
        connection = HTTPConnection("127.0.0.1", self.where[1], timeout=DEADLINE)
        connection.request(method, target)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, body, dict(response.getheaders())

    def raw(self, request: bytes) -> bytes:
        """All that comes back for these bytes."""
        with self.connect() as client:
            client.sendall(request)
            return b"".join(iter(lambda: client.recv(1 << 20), b""))


@pytest.fixture
def serving() -> Iterator[Serving]:
    it = Serving()
    yield it
    it.server.close()


@pytest.fixture
def impatient() -> Iterator[Serving]:
    """One that gives nobody more than a moment."""
    it = Serving(deadline=0.2)
    yield it
    it.server.close()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Both ends of a thousand connections are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_page(serving: Serving) -> None:
    """GET gives it whole, HEAD says how long it is."""
    status, body, headers = serving.ask()

    assert (status, body, headers["Content-Length"]) == (200, PAGE, str(len(PAGE)))
    assert headers["Connection"] == "close"
    status, body, head = serving.ask("HEAD")
    assert (status, body, head) == (200, b"", headers)
    assert serving.ask("GET", "/metrics?name=x")[0] == 200


@pytest.mark.parametrize("target", ["/", "/metrics/", "/metrics/../metrics", "//metrics", "/Metrics", "*"])
def test_there_is_one_page(serving: Serving, target: str) -> None:
    """Everything else is not found, and costs nothing."""
    assert serving.ask("GET", target)[0] == 404
    assert serving.made == 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "X"])
def test_it_is_only_for_reading(serving: Serving, method: str) -> None:
    """Other methods are told what there is."""
    status, _, headers = serving.ask(method)

    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert serving.made == 0


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(b"\r\n\r\n", 400, id="nothing"),
        pytest.param(b"GET\r\n\r\n", 400, id="one word"),
        pytest.param(b"GET /metrics\r\n\r\n", 400, id="two words"),
        pytest.param(b"GET http://[/metrics HTTP/1.1\r\n\r\n", 400, id="bad URL"),
        pytest.param(b"\xff\xfe /metrics HTTP/1.1\r\n\r\n", 400, id="bytes"),
        pytest.param(b"GET /metrics HTTP/1.1 x\r\n\r\n", 400, id="four words"),
        pytest.param(b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 1000 + b"\r\n", 400, id="many headers"),
        pytest.param(b"GET /metrics HTTP/2.0\r\n\r\n", 505, id="HTTP/2"),
        pytest.param(b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", 431, id="huge"),
        pytest.param(b"GET /metrics HTTP/1.0\r\n\r\n", 200, id="HTTP/1.0"),
    ],
)
def test_odd_requests(serving: Serving, request_: bytes, status: int) -> None:
    """Each gets an answer that says so, and the next one is served."""
    try:
        assert serving.raw(request_).startswith(f"HTTP/1.1 {status} ".encode())
    except ConnectionResetError:  # closed while bytes of a huge request were still on their way
        assert status == 431
    assert serving.ask()[0] == 200


def test_a_body_is_not_read(serving: Serving) -> None:
    """Nor is a second request on the same connection."""
    answer = serving.raw(b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 404 ")
    assert serving.raw(2 * b"HEAD /metrics HTTP/1.1\r\n\r\n").count(b"HTTP/1.1") == 1


def hung_up(client: socket.socket) -> bool:
    """Whether the next that comes is the end, in good order or not."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:  # what was sent meanwhile had not been read
        return True


def test_slow_requests(impatient: Serving) -> None:
    """Who does not say what is wanted in time loses the connection."""
    with impatient.connect() as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")

        assert hung_up(client)
    assert impatient.server.turned_away == 1


def test_slow_readers(impatient: Serving) -> None:
    """Who does not take the answer in time does not get all of it."""
    with impatient.connect() as client, impatient.connect() as later:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert later.recv(1) == b""  # cut, so the one before it is as well
        received = b""
        with suppress(ConnectionResetError):
            while data := client.recv(1 << 20):
                received += data

    assert len(received) < len(PAGE)
    assert impatient.server.turned_away == 2


def test_a_thousand_idle_connections(serving: Serving, many_files: None) -> None:
    """They push out each other, not the scrape that comes after them."""
    with ExitStack() as stack:
        for _ in range(1000):
            client = stack.enter_context(serving.connect())
            client.sendall(b"GET /metr")

        assert serving.ask()[1] == PAGE
        assert serving.server.turned_away >= 1000 - CONNECTIONS


def test_it_closes_with_connections_open(serving: Serving) -> None:
    """All of them; nobody keeps it from ending."""
    other = Serving()
    with other.connect() as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert client.recv(1) == b"H"
        other.server.close()
        with pytest.raises(ConnectionRefusedError):
            other.connect()
    assert serving.ask()[0] == 200


class TestOutput:
    """The output that the server belongs to."""

    @pytest.fixture
    def port(self) -> int:
        return free_port()

    @pytest.fixture
    def output(self, port: int, tmp_path: Path) -> Iterator[PrometheusOutput]:
        it = PrometheusOutput()
        it.init(self.config(port, tmp_path))
        yield it
        it.close()

    @staticmethod
    def config(port: int, directory: Path, **options: object) -> OutputConfig:
        return OutputConfig(
            name="prometheus", log_dir=directory, state_dir=directory,
            options={"listen": f"127.0.0.1:{port}", **options},
        )  # fmt: skip

    @staticmethod
    def scrape(port: int, **headers: str) -> tuple[int, bytes, Message]:
        connection = HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        connection.request(
            "GET", "/metrics", headers={name.replace("_", "-"): headers[name] for name in headers}
        )
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, body, response.headers

    def test_formats(self, output: PrometheusOutput, port: int) -> None:
        """Prometheus' text, OpenMetrics on request, compressed on request; nothing before a snapshot."""
        assert self.scrape(port)[0] == 503
        output.write(snapshots.small())
        status, text, headers = self.scrape(port)

        assert (status, headers["Content-Type"].partition(";")[0]) == (200, "text/plain")
        assert b"\nnetmond_host_receive_bytes_total 8383.0\n" in text
        _, packed, headers = self.scrape(port, Accept_Encoding="gzip, deflate")
        assert (headers["Content-Encoding"], gzip.decompress(packed)) == ("gzip", text)
        _, modern, headers = self.scrape(port, Accept="application/openmetrics-text;version=1.0.0,*/*;q=0.1")
        assert headers["Content-Type"].startswith("application/openmetrics-text;")
        assert modern.endswith(b"# EOF\n")

    def test_newest_snapshot(self, output: PrometheusOutput, port: int) -> None:
        """It is what is served, however often, and text is made once for each."""
        for time in (2005.0, 2006.0):
            output.write(replace(snapshots.small(), time=time))
            first, second = self.scrape(port)[1], self.scrape(port)[1]

            assert f"netmond_snapshot_timestamp_seconds {time}\n".encode() in first
            assert first == second

    def test_flows_are_asked_for(self, output: PrometheusOutput, port: int, tmp_path: Path) -> None:
        """No series of flows by default: there may be any number."""
        output.write(snapshots.small())
        assert b"netmond_flow_" not in self.scrape(port)[1]
        output.close()
        output.init(self.config(port, tmp_path, flows=2))
        output.write(snapshots.small())

        assert self.scrape(port)[1].count(b"\nnetmond_flow_receive_bytes_total{") == 3

    def test_restart(self, output: PrometheusOutput, port: int, tmp_path: Path) -> None:
        """With other keys it listens elsewhere, and not where it did."""
        output.close()
        with pytest.raises(ConnectionRefusedError):
            self.scrape(port)
        output.init(self.config(port, tmp_path))

        assert self.scrape(port)[0] == 503

    def test_a_port_in_use(self, output: PrometheusOutput, port: int, tmp_path: Path) -> None:
        """Said so, with the remedy; closing what was never open is no error."""
        other = PrometheusOutput()
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:\d+: Address already in use; set listen"):
            other.init(self.config(port, tmp_path))
        other.close()

        assert self.scrape(port)[0] == 503

    def test_losses(self, output: PrometheusOutput, port: int, tmp_path: Path) -> None:
        """Who was turned away is counted, also after a restart."""
        output.write(snapshots.small())
        with ExitStack() as stack:
            for _ in range(CONNECTIONS + 5):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                client.sendall(b"GET")
            assert self.scrape(port)[0] == 200
        before = {loss.name: loss.count for loss in output.losses()}
        output.close()
        output.init(self.config(port, tmp_path))

        assert before["output.prometheus.turned-away"] >= 5
        assert {loss.name: loss.count for loss in output.losses()} == before

    def test_socket_of_the_service_manager(
        self, output: PrometheusOutput, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that was handed over is used instead of what the configuration says."""
        with socket.create_server(("127.0.0.1", 0)) as given:
            monkeypatch.setattr("netmond.export.prometheus.inherited", lambda name: given.dup())
            output.close()
            output.init(self.config(port, tmp_path))

            assert self.scrape(given.getsockname()[1])[0] == 503


def test_where_to_listen() -> None:
    """IPv4, IPv6 and names."""
    port = free_port()
    for where in ("127.0.0.1", "[::1]", "localhost"):
        with listen(parse(f"tcp:{where}:{port}", ("tcp",))) as listener:
            assert listener.getsockname()[1] == port
