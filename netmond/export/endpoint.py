"""HTTP POST to one URL (RFC 9110), and what is wrong with it in words that help.

Redirects are not followed: a client that does so turns a POST into a GET, and what was sent is gone.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from netmond import __version__
from netmond.errors import ConfigError, NetmondError, Unavailable
from netmond.export.address import Address
from netmond.export.connection import connect, unavailable
from netmond.export.delivery import Rejected
from netmond.outputs.log import escape

if TYPE_CHECKING:
    import ssl

_PORTS = {"http": 80, "https": 443}

#: Client errors (4xx) that another attempt may find mended; the others stay as they are.
_MENDABLE = {
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}

#: Bytes of an answer that are read, and characters of it that are told.
_READ, _TOLD = 4096, 200


class Endpoint:
    """Where to post to. A connection for each request: nothing is left open that could be stale."""

    def __init__(self, url: str, timeout: float, *, token_file: str = "", ca_file: str = "") -> None:
        """Raises ConfigError for a URL or certificates that cannot be used."""
        try:
            parts = urlsplit(url)
            self._address = Address("tcp", parts.hostname or "", parts.port or _PORTS[parts.scheme])
        except (KeyError, ValueError) as error:
            raise ConfigError(f"the URL is not valid: {error}") from None
        if not self._address.host:
            raise ConfigError("the URL is not valid: it names no host")
        self._target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        # Without password and query: it stands in messages.
        self._where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._timeout = timeout
        self._login = _login(parts)
        self._token_file = Path(token_file) if token_file else None
        self._tls = _tls(ca_file) if parts.scheme == "https" else None

    def post(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Returns once the other side has taken it. Raises Rejected, else NetmondError: try again later."""
        connection = HTTPConnection(self._address.host, self._address.port)
        headers = {"User-Agent": f"netmond/{__version__}", "Connection": "close", **self._login, **headers}
        if self._token_file is not None:
            headers["Authorization"] = f"Bearer {_token(self._token_file)}"
        connection.sock = self._connect()
        try:
            connection.request("POST", self._target, body, headers)
            with connection.getresponse() as response:
                text = response.read(_READ).decode("utf-8", "replace")
        except OSError as error:
            raise unavailable(self._address, error, connected=True) from error
        except HTTPException as error:
            raise Unavailable(f"{self._where} does not speak HTTP: {type(error).__name__}") from error
        finally:
            connection.close()
        self._judge(response.status, escape(text[:_TOLD].strip()), response.getheader("Location", ""))

    def _connect(self) -> socket.socket:
        plain = connect(self._address, self._timeout)
        if self._tls is None:
            return plain
        import ssl

        try:
            return self._tls.wrap_socket(plain, server_hostname=self._address.host)
        except OSError as error:
            plain.close()
            if isinstance(error, ssl.SSLCertVerificationError):
                raise Unavailable(
                    f"{self._where}: its certificate is not trusted: {error.verify_message};"
                    " if it should be, name the file of its authority in ca_file"
                ) from error
            if isinstance(error, ssl.SSLError):
                raise Unavailable(f"{self._where}: TLS fails: {error.reason or error}") from error
            raise unavailable(self._address, error, connected=True) from error

    def _judge(self, status: int, text: str, location: str) -> None:
        if 200 <= status < 300:
            return
        answer = f"{self._where} answers {status} {_phrase(status)}".rstrip()
        if 300 <= status < 400:
            raise Unavailable(f"{answer}: it is at {escape(location[:_TOLD])} now, correct the URL")
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise Unavailable(f"{answer}: correct token_file, or user and password in the URL")
        if 400 <= status < 500 and status not in _MENDABLE:
            raise Rejected(f"{answer}: {text}" if text else answer)
        raise Unavailable(answer)


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus.__members__.values() else ""


def _login(parts: SplitResult) -> dict[str, str]:
    """Basic authentication, RFC 7617."""
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _token(path: Path) -> str:
    """Read each time: whoever renews it need not tell anybody."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise Unavailable(
            f"token_file {path}: {getattr(error, 'strerror', 'it is not ASCII text')}"
        ) from None
    if not token or not token.isprintable():
        raise Unavailable(f"token_file {path}: it must hold one line of text")
    return token


def _tls(ca_file: str) -> ssl.SSLContext:
    import ssl  # with OpenSSL, 9 MB that only https needs

    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise NetmondError(f"ca_file {ca_file}: {error.strerror or error}") from None
