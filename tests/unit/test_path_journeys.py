"""Which events belong to the same packet."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from netmond.kernel.wire import PATH_DROP, PATH_PASS, PATH_RETRANSMIT
from netmond.path import journeys
from netmond.path.events import flows, marks
from netmond.path.journeys import Journey, Journeys
from tests.unit.pathevents import ACK, NAMES, STAGES, event

_EVENTS = {"kfree_skb": PATH_DROP, "tcp_retransmit_skb": PATH_RETRANSMIT}
OTHER = 0xFFFF888000002000  # another sk_buff


class Way:
    """Events one after another, 100 ns apart."""

    def __init__(self) -> None:
        self.journeys = Journeys()
        self._times = count(10**12, 100)
        self.since: int | None = None

    def __call__(self, stage: str, **fields: object) -> Journey:
        record = event(stage, next(self._times), **fields)
        socket = np.array([STAGES[stage].socket])
        calls = socket & STAGES[stage].origin
        journey, self.since = self.journeys.follow(
            _EVENTS.get(stage, PATH_PASS),
            STAGES[stage],
            int(record["time"][0]),
            int(record["packet"][0]),
            flows(record)[0],
            marks(record, ~socket, calls)[0],
            int(record["ifindex"][0]),
            int(record["linked"][0]),
        )
        return journey


@pytest.fixture
def way() -> Way:
    return Way()


def test_a_packet_is_followed_by_its_buffer(way: Way) -> None:
    """From stage to stage, with the time between."""
    first = way("ip_queue_xmit")

    assert way.since is None
    assert [way(stage) for stage in ("ip_output", "net_dev_start_xmit")] == [first, first]
    assert way.since == 100


def test_through_a_cable_to_the_reader(way: Way) -> None:
    """In the other namespace it is the same buffer, and the socket's stages are of the last packet."""
    first = way("ip_queue_xmit")
    rest = [way(stage) for stage in ("net_dev_start_xmit", "netif_receive_skb", "ip_rcv", "tcp_v4_do_rcv")]
    woken = way("sock_def_readable", packet=0, sequence=0, acknowledgement=0, flags=0, length=0)
    read = [way("skb_copy_datagram_iter") for _ in range(2)]  # in two pieces

    assert {journey.number for journey in (first, *rest, woken, *read)} == {1}


def test_a_socket_that_is_told_after_the_packet_was_sent(way: Way) -> None:
    """As the end of send(): it belongs to the packet, which goes on from where it was."""
    first = way("ip_queue_xmit")
    told = way("tcp_sendmsg", linked=1, flags=0, length=60)

    assert told is first
    assert way("ip_output") is first


def test_a_call_before_its_packet(way: Way) -> None:
    """The next packet of the flow is what it sends, and the one after is not."""
    call = {"packet": 0, "sequence": 0, "acknowledgement": 0, "flags": 0, "length": 60}
    numbers = []
    for sequence in (1000, 1060):
        numbers += [way("tcp_sendmsg", **call).number, way("ip_queue_xmit", sequence=sequence).number]

    assert numbers == [1, 1, 2, 2]
    assert way("ip_queue_xmit", packet=OTHER, sequence=1120).number == 3


def test_a_call_that_knows_what_it_sends(way: Way) -> None:
    """An acknowledgement that leaves before is not it."""
    call = {"packet": 0, "sequence": 1000, "acknowledgement": 0, "flags": 0, "length": 60}

    assert way("tcp_sendmsg", **call).number == 1
    assert way("ip_queue_xmit", sequence=1000, flags=ACK, length=52).number == 2
    assert way("ip_queue_xmit", sequence=1000).number == 1
    assert way("tcp_sendmsg", **{**call, "sequence": 1060}).number == 3


def test_a_buffer_used_again(way: Way) -> None:
    """For the next segment of the connection, and for the same stage."""
    assert way("ip_queue_xmit").number == 1
    assert way("ip_queue_xmit", sequence=5060).number == 2
    assert way("ip_output", sequence=5060).number == 2


def test_a_clone(way: Way) -> None:
    """Another buffer, the same segment, further on the way."""
    first = way("ip_queue_xmit")

    assert way("ip_output", packet=OTHER) is first
    assert way("net_dev_start_xmit", packet=OTHER) is first


def test_a_retransmission_is_a_journey_that_names_the_first(way: Way) -> None:
    """Whether the stages or only the kernel's word for it are seen; each time anew."""
    first = way("ip_queue_xmit")
    way("net_dev_start_xmit")
    again = way("ip_queue_xmit")
    told = way("tcp_retransmit_skb", packet=OTHER)
    third = way("tcp_retransmit_skb", packet=OTHER)
    fourth = way("ip_queue_xmit")
    told_too = way("tcp_retransmit_skb", packet=OTHER)

    assert [each.first for each in (first, again, third, fourth)] == [0, *[first.number] * 3]
    assert told is again
    assert told_too is fourth
    assert [each.number for each in (first, again, third, fourth)] == [1, 2, 3, 4]


def test_a_retransmission_arrives(way: Way) -> None:
    """Where only the receiver is seen: what comes twice was sent twice."""
    way("netif_receive_skb")
    way("tcp_v4_do_rcv")

    assert way("netif_receive_skb", packet=OTHER).first == 1


def test_duplicate_acknowledgements_are_different_packets(way: Way) -> None:
    """They look the same, and are no retransmission."""
    bare = {"flags": ACK, "length": 52}
    first, second = way("netif_receive_skb", **bare), way("netif_receive_skb", packet=OTHER, **bare)

    assert (first.number, second.number) == (1, 2)
    assert second.first == 0


def test_an_acknowledgement_is_not_the_data_behind_it(way: Way) -> None:
    """Both carry the same sequence number."""
    assert way("ip_queue_xmit", flags=ACK, length=52).number == 1
    assert way("ip_output").number == 2


def test_a_drop_ends_a_journey(way: Way) -> None:
    """The buffer's next packet is another one, even if it looks the same."""
    first = way("netif_receive_skb")

    assert way("kfree_skb") is first
    assert way("tcp_v4_do_rcv").number == 2


def test_forwarding(way: Way) -> None:
    """In at one interface, out at another, in at the next machine."""
    stages = "netif_receive_skb", "ip_rcv", "ip_output", "net_dev_start_xmit", "netif_receive_skb"

    assert {way(stage, ifindex=number).number for number, stage in enumerate(stages, 1)} == {1}


def test_interfaces_on_top_of_each_other(way: Way) -> None:
    """A VLAN: the same stage, another interface."""
    assert {way("net_dev_start_xmit", ifindex=index).number for index in (5, 3)} == {1}
    assert way("net_dev_start_xmit", ifindex=3).number == 2


def test_addresses_that_are_translated_on_the_way(way: Way) -> None:
    """The same buffer and sequence number."""
    first = way("netif_receive_skb", destination="203.0.113.1")

    assert way("tcp_v4_do_rcv") is first


def test_datagrams(way: Way) -> None:
    """Those of IPv4 may have a number; all keep their buffer."""
    udp = {"protocol": 17, "sequence": 0, "acknowledgement": 0, "flags": 0}

    assert way("ip_output", **udp).number == 1
    assert way("net_dev_start_xmit", id=9, **udp).number == 1
    assert way("netif_receive_skb", packet=OTHER, id=9, **udp).number == 1
    assert way("netif_receive_skb", packet=OTHER, id=10, **udp).number == 2


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    """Old packets are forgotten, those that move are not."""
    monkeypatch.setattr(journeys, "LIMIT", 8)
    first = way("netif_receive_skb")
    for number in range(100):
        way("netif_receive_skb", packet=number + 1, sequence=number)
        assert way("sock_def_readable", linked=1) is first

    assert len(way.journeys) <= 2 * (8 + 2)
    assert way("ip_rcv", packet=1, sequence=0).number != 2


def test_a_packet_is_forgotten_with_time() -> None:
    """Two spans later at the latest."""
    journeys_, place = Journeys(), STAGES["ip_rcv"]
    one, _ = journeys_.follow(PATH_PASS, place, 0, 1, b"flow", 7, 0)
    for number in (1, 2):
        journeys_.follow(PATH_PASS, place, number * (journeys.AGE + 1), 2, b"other", number, 0)
    late, _ = journeys_.follow(PATH_DROP, place, 2 * (journeys.AGE + 1), 1, b"flow", 7, 0)

    assert late.number != one.number


def test_stages_of_the_tests_are_numbered_as_they_come() -> None:
    assert [place.rank for place in STAGES.values()] == list(range(len(NAMES)))
