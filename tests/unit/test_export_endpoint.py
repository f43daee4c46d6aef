"""Posting: what the other side may answer or fail to, and what the administrator is told."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from netmond.errors import ConfigError, NetmondError, Unavailable
from netmond.export.delivery import Rejected
from netmond.export.endpoint import Endpoint
from tests.export.peers import free_port
from tests.unit.receiver import Receiver, self_signed

TIMEOUT = 20.0


def post(receiver: Receiver, path: str = "/in", login: str = "", **options: str) -> None:
    Endpoint(f"http://{login}127.0.0.1:{receiver.port}{path}", TIMEOUT, **options).post(
        b"figures", {"X": "y"}
    )


def refusal(call: Callable[[], None], error: type[NetmondError] = Unavailable) -> str:
    """What the error says: one line."""
    with pytest.raises(NetmondError) as caught:
        call()
    assert type(caught.value) is error
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_delivered(receiver: Receiver) -> None:
    """The bytes, at the path with its query, with the headers; any 2xx will do."""
    for receiver.status in (200, 204):
        post(receiver, "/in?x=1%20y")
    path, headers, body = receiver.got[0]

    assert (path, body, headers["X"]) == ("/in?x=1%20y", b"figures", "y")
    assert headers["User-Agent"].startswith("netmond/")
    assert len(receiver.got) == 2


def test_user_and_password(receiver: Receiver) -> None:
    """They are in the URL, and never in a message."""
    post(receiver, login="alice:a%40b:c@")
    assert receiver.got[0][1]["Authorization"] == f"Basic {base64.b64encode(b'alice:a@b:c').decode()}"
    receiver.status = 401

    message = refusal(lambda: post(receiver, "/in?key=secret", login="alice:secret@"))
    assert message == (
        f"http://127.0.0.1:{receiver.port}/in answers 401 Unauthorized: correct token_file, or user and"
        " password in the URL"
    )


def test_token(receiver: Receiver, tmp_path: Path) -> None:
    """Of a file that is read for each request, so it may be renewed; a bad one is no reason to drop."""
    file = tmp_path / "token"
    for token in ("first", "second"):
        file.write_text(f"{token}\n")
        post(receiver, token_file=str(file))
        assert receiver.got[-1][1]["Authorization"] == f"Bearer {token}"
    for content in ("", "two\nlines", "ü"):
        file.write_text(content)
        assert refusal(lambda: post(receiver, token_file=str(file))).startswith(f"token_file {file}: ")
    file.unlink()
    assert refusal(lambda: post(receiver, token_file=str(file))) == (
        f"token_file {file}: No such file or directory"
    )


@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 422, 499])
def test_rejected(receiver: Receiver, status: int) -> None:
    """The same request would fail for ever; the reason is told in one line of bounded length."""
    receiver.status, receiver.body = status, b"cannot parse\n\x1b[2J" + b"x" * 100_000
    message = refusal(lambda: post(receiver), Rejected)

    assert message.startswith(f"http://127.0.0.1:{receiver.port}/in answers {status}")
    assert r"cannot parse\n\x1b[2J" in message
    assert len(message) < 400


@pytest.mark.parametrize("status", [401, 403, 407, 408, 425, 429, 500, 502, 503, 504, 599])
def test_put_off(receiver: Receiver, status: int) -> None:
    """Errors that can pass, and those that the administrator can mend: the text is always the same."""
    receiver.status = status
    messages = set()
    for receiver.body in (b"at 12:00", b"at 12:01"):
        messages.add(refusal(lambda: post(receiver)))

    assert len(messages) == 1
    assert f" answers {status}" in messages.pop()


def test_redirected(receiver: Receiver) -> None:
    """Nobody is followed, least of all by a GET that loses what was posted."""
    receiver.status, receiver.headers = 301, {"Location": "https://other/in"}

    assert refusal(lambda: post(receiver)).endswith(
        "answers 301 Moved Permanently: it is at https://other/in now, correct the URL"
    )
    assert len(receiver.got) == 1


def raw_server(answer: bytes) -> tuple[socket.socket, int]:
    """A listener that says this to the first who connects, and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(ConnectionError):  # the client may leave before it has heard all
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass

    threading.Thread(target=serve, daemon=True).start()
    return listener, listener.getsockname()[1]


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 two hundred\r\n\r\n", b"\0" * 100_000],
    ids=["nothing", "ssh", "odd", "zeroes"],
)
def test_not_a_web_server(answer: bytes) -> None:
    """What answers is something else, or says nothing."""
    listener, port = raw_server(answer)
    with listener:
        message = refusal(lambda: Endpoint(f"http://127.0.0.1:{port}/", TIMEOUT).post(b"", {}))

    assert f"127.0.0.1:{port}" in message


def test_silence() -> None:
    """Who accepts and says nothing costs the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        message = refusal(lambda: Endpoint(f"http://127.0.0.1:{port}/", 0.1).post(b"", {}))

    assert f"127.0.0.1:{port}: Connection timed out" in message


def test_nobody_there() -> None:
    """A closed port, a name that does not exist."""
    port = free_port()

    assert "Connection refused" in refusal(lambda: Endpoint(f"http://127.0.0.1:{port}/", 1).post(b"", {}))
    message = refusal(lambda: Endpoint("http://no-such-host.invalid/", 1).post(b"", {}))
    assert message.startswith("tcp:no-such-host.invalid:80: the name cannot be looked up: ")


@pytest.mark.parametrize("url", ["http://", "http://h:99999/", "ftp://h/", "http://h:x/", "http://[::1/"])
def test_bad_urls(url: str) -> None:
    """Said at the start."""
    assert refusal(lambda: Endpoint(url, 1).post(b"", {}), ConfigError).startswith("the URL is not valid")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secure(certificate: Path) -> Iterator[Receiver]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Receiver().serving(context) as receiver:
        yield receiver


def test_tls(secure: Receiver, certificate: Path) -> None:
    """With the certificate in ca_file the other side is known."""
    endpoint = Endpoint(f"https://localhost:{secure.port}/in", TIMEOUT, ca_file=str(certificate))
    endpoint.post(b"figures", {})

    assert secure.got[0][2] == b"figures"


def test_tls_is_verified(secure: Receiver, certificate: Path) -> None:
    """Who signed it, and for whom: nothing is sent to anybody else."""
    unknown = Endpoint(f"https://localhost:{secure.port}/in", TIMEOUT)
    assert refusal(lambda: unknown.post(b"figures", {})) == (
        f"https://localhost:{secure.port}/in: its certificate is not trusted: self-signed certificate; if it"
        " should be, name the file of its authority in ca_file"
    )
    other = Endpoint(f"https://127.0.0.1:{secure.port}/in", TIMEOUT, ca_file=str(certificate))
    assert "IP address mismatch" in refusal(lambda: other.post(b"figures", {}))
    assert secure.got == []


def test_no_tls_there(receiver: Receiver, tmp_path: Path) -> None:
    """A server without TLS; and certificates that are none."""
    endpoint = Endpoint(f"https://127.0.0.1:{receiver.port}/in", TIMEOUT)
    assert "TLS fails: WRONG_VERSION_NUMBER" in refusal(lambda: endpoint.post(b"", {}))
    file = tmp_path / "ca.pem"
    with pytest.raises(NetmondError, match=f"ca_file {file}: No such file"):
        Endpoint("https://localhost/", TIMEOUT, ca_file=str(file))
    file.write_text("no certificate")
    with pytest.raises(NetmondError, match=f"ca_file {file}: "):
        Endpoint("https://localhost/", TIMEOUT, ca_file=str(file))
