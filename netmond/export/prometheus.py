"""The output ``prometheus``: figures for whoever scrapes them.

Whoever can connect sees everybody's figures: loopback is for a machine whose users may know of each other.
"""

from __future__ import annotations

import gzip
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus

from netmond.config import OutputConfig, read_options
from netmond.errors import Unavailable
from netmond.export import exposition, metrics
from netmond.export.activation import inherited
from netmond.export.address import Address
from netmond.export.cardinality import FlowView, TopFlows
from netmond.export.options import OPTIONS
from netmond.export.scrape import BACKLOG, Answer, ScrapeServer
from netmond.model import Loss, Snapshot
from netmond.users import Names

_OPENMETRICS = "application/openmetrics-text"


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """What is served: handed from the output's thread to the server's as a whole."""

    snapshot: Snapshot
    flows: FlowView | None


class PrometheusOutput:
    """Serves the last snapshot in the format that is asked for, made once when somebody asks."""

    name = "prometheus"
    options = OPTIONS["prometheus"]

    def __init__(self) -> None:
        # Each for one thread: the server's, and the output's.
        self._names, self._flow_names = Names(), Names()
        self._server: ScrapeServer | None = None
        self._turned_away = 0  # by earlier servers
        self._flows: TopFlows | None = None
        self._state: _State | None = None
        self._made: tuple[_State, dict[tuple[bool, str], Answer]] | None = None

    def init(self, config: OutputConfig) -> None:
        values, _ = read_options(self.options, config)
        self._flows = TopFlows(values["flows"], self._flow_names.lookup) if values["flows"] else None
        self._state = None
        self._server = ScrapeServer(listen(values["listen"]), self._render)

    def write(self, snapshot: Snapshot) -> None:
        if self._flows is not None:
            self._flows.take(snapshot)
        self._state = _State(snapshot, self._flows.view() if self._flows is not None else None)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._turned_away += self._server.turned_away
            self._server = None

    def losses(self) -> Sequence[Loss]:
        now = self._server.turned_away if self._server is not None else 0
        return (
            Loss(
                name="output.prometheus.turned-away",
                count=self._turned_away + now,
                meaning="connections closed before they got the figures: too slow, or too many at once",
            ),
        )

    def _render(self, headers: Message) -> Answer:
        """In the server's thread. A snapshot has four pages at most: two formats, compressed or not."""
        state = self._state
        if state is None:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"There are no figures yet.\n")
        if self._made is None or self._made[0] is not state:
            self._made = state, {}
        compressed = exposition.takes_gzip(headers.get("Accept-Encoding", ""))
        accept = _OPENMETRICS if _OPENMETRICS in headers.get("Accept", "") else ""
        pages = self._made[1]
        if (compressed, accept) not in pages:
            pages[compressed, accept] = self._page(state, accept, compressed=compressed)
        return pages[compressed, accept]

    def _page(self, state: _State, accept: str, *, compressed: bool) -> Answer:
        readings = metrics.read(state.snapshot, self._names.lookup, state.flows)
        body, content_type = exposition.encode(readings, accept)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if compressed:
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, 1, mtime=0)
        return Answer(HTTPStatus.OK, body, headers)


def listen(address: Address) -> socket.socket:
    """A listening socket: the one that was handed over, or a new one. Unavailable."""
    given = inherited("prometheus")
    if given is not None:
        return given
    try:
        (family, _, _, _, where), *_ = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return socket.create_server(where[:2], family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", 0)
        reason = os.strerror(number) if number > 0 else str(error)  # create_server() says the address again
        raise Unavailable(
            f"cannot listen at {address}: {reason}; set listen in [output.prometheus] to another address"
        ) from error
