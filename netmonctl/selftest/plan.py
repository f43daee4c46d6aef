"""What is sent, and what it is on the wire and in the network stack: arithmetic only.

Counts and sizes are primes, hardly two alike: no sum looks like another, and what is missing tells where.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from netmonctl.selftest.figures import Figures

MTU = 1500
IP_HEADER = {4: 20, 6: 40}
UDP_HEADER = 8
FRAGMENT_HEADER = {4: 0, 6: 8}  #: beside the IP header that each fragment repeats, RFC 8200 4.5

#: What the near end's kernel is asked and answers by itself: so many requests, and the payload of an echo.
ARP_REQUESTS, ECHO_REQUESTS, ECHO_SIZE = 7, 11, 137


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One conversation of the near end with the far one, which answers; `sent` is what the near end sends.

    Datagrams: (how many, payload of each). TCP: one stream of so many bytes, (1, bytes).
    `socket`: flows that share one are the peers of an unconnected socket.
    """

    name: str
    family: int
    protocol: str
    sent: tuple[int, int]
    answered: tuple[int, int]
    socket: str = ""

    @property
    def kind(self) -> str:
        """As netmond calls its row."""
        return "peer" if self.socket else "socket"

    @property
    def wire(self) -> Figures:
        """IP packets of a flow of datagrams."""
        return self._figures(_on_the_wire)

    @property
    def stack(self) -> Figures:
        """The same before they are cut in pieces, and after they are put together."""
        return self._figures(_in_the_stack)

    @property
    def is_cut(self) -> bool:
        """Whether its datagrams do not fit into one packet."""
        return self.protocol == "udp" and self.wire != self.stack

    def _figures(self, measure: Callable[[int, int], tuple[int, int]]) -> Figures:
        (sent, size), (answered, answer_size) = self.sent, self.answered
        out_packets, out_bytes = measure(self.family, size)
        in_packets, in_bytes = measure(self.family, answer_size)
        return Figures(answered * in_packets, answered * in_bytes, sent * out_packets, sent * out_bytes)


def _in_the_stack(family: int, size: int) -> tuple[int, int]:
    """Packets and bytes from the IP header on."""
    return 1, IP_HEADER[family] + UDP_HEADER + size


def _on_the_wire(family: int, size: int) -> tuple[int, int]:
    payload = UDP_HEADER + size
    if IP_HEADER[family] + payload <= MTU:
        return _in_the_stack(family, size)
    headers = IP_HEADER[family] + FRAGMENT_HEADER[family]
    each = (MTU - headers) // 8 * 8
    pieces = -(-payload // each)
    return pieces, payload + pieces * headers


FLOWS = (
    Flow(name="udp 4", family=4, protocol="udp", sent=(29, 101), answered=(23, 307)),
    Flow(name="udp 6", family=6, protocol="udp", sent=(31, 131), answered=(19, 337)),
    Flow(name="fragments 4", family=4, protocol="udp", sent=(3, 5003), answered=(2, 4409)),
    Flow(name="fragments 6", family=6, protocol="udp", sent=(2, 5009), answered=(3, 4421)),
    Flow(name="peer 4a", family=4, protocol="udp", sent=(5, 149), answered=(13, 173), socket="peers 4"),
    Flow(name="peer 4b", family=4, protocol="udp", sent=(7, 149), answered=(11, 173), socket="peers 4"),
    Flow(name="peer 6a", family=6, protocol="udp", sent=(11, 151), answered=(7, 179), socket="peers 6"),
    Flow(name="peer 6b", family=6, protocol="udp", sent=(13, 151), answered=(5, 179), socket="peers 6"),
    Flow(name="tcp 4", family=4, protocol="tcp", sent=(1, 307_201), answered=(1, 211_007)),
    Flow(name="tcp 6", family=6, protocol="tcp", sent=(1, 311_021), answered=(1, 199_999)),
)


def flows(*, ipv6: bool) -> tuple[Flow, ...]:
    """Those that this machine can have."""
    return tuple(flow for flow in FLOWS if ipv6 or flow.family == 4)
