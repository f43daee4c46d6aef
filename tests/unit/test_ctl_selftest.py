"""netmonctl selftest without netmond or a cable: what is sent, what a frame is, where it may be."""

from __future__ import annotations

import os
import signal
from ipaddress import ip_network
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, STP, Dot3, Ether

from netmonctl.errors import CtlError, ExitCode
from netmonctl.selftest import frames, plan, scene, witness
from netmonctl.selftest.interruption import Interruption
from netmonctl.selftest.plan import Flow
from netmonctl.selftest.witness import Count, Kind
from tests.unit.test_ctl_commands import Fake, Ran

NEAR, FAR = {4: "192.0.2.249", 6: "2001:db8::1"}, {4: "192.0.2.250", 6: "2001:db8::2"}
BROADCAST, MAC = "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:01"


def named(name: str) -> Flow:
    (flow,) = (flow for flow in plan.FLOWS if flow.name == name)
    return flow


# -- the plan --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wire", "stack"),
    [
        ("udp 4", (23, 23 * (307 + 28), 29, 29 * (101 + 28)), None),
        ("udp 6", (19, 19 * (337 + 48), 31, 31 * (131 + 48)), None),
        # 1480 bytes of payload to a fragment of IPv4, 1448 of IPv6: 3 and 4 of them
        (
            "fragments 4",
            (2 * 3, 2 * (4409 + 8 + 3 * 20), 3 * 4, 3 * (5003 + 8 + 4 * 20)),
            (2, 2 * (4409 + 28), 3, 3 * (5003 + 28)),
        ),
        (
            "fragments 6",
            (3 * 4, 3 * (4421 + 8 + 4 * 48), 2 * 4, 2 * (5009 + 8 + 4 * 48)),
            (3, 3 * (4421 + 48), 2, 2 * (5009 + 48)),
        ),
    ],
)
def test_datagrams(name: str, wire: tuple[int, ...], stack: tuple[int, ...] | None) -> None:
    """Packets and bytes, in and out, on the wire and in the stack."""
    assert named(name).wire == wire
    assert named(name).stack == (stack or wire)


def test_what_is_sent_is_prime() -> None:
    """As the plan says: no sum of some figures looks like others."""
    numbers = {number for flow in plan.FLOWS for number in (*flow.sent, *flow.answered)} - {1}
    numbers |= {plan.ARP_REQUESTS, plan.ECHO_REQUESTS, plan.ECHO_SIZE}

    assert [
        number for number in numbers if any(number % each == 0 for each in range(2, 600) if each < number)
    ] == []


def test_without_ipv6() -> None:
    """Half of the flows."""
    assert {flow.family for flow in plan.flows(ipv6=False)} == {4}
    assert plan.flows(ipv6=True) == plan.FLOWS


# -- frames and the witness ------------------------------------------------------------------------------


def test_arp_request() -> None:
    """As another decoder reads it."""
    frame = Ether(frames.arp_request(MAC, "192.0.2.250", "192.0.2.249"))

    assert (frame.dst, frame.src, frame[ARP].op, frame[ARP].hwsrc) == (BROADCAST, MAC, 1, MAC)
    assert (frame[ARP].psrc, frame[ARP].pdst) == ("192.0.2.250", "192.0.2.249")


@pytest.mark.parametrize("family", [4, 6])
def test_echo_request(family: int) -> None:
    """The same, checksums included."""
    near, far = NEAR[family], FAR[family]
    data = frames.echo_request((MAC, BROADCAST), (far, near), 137)
    frame = Ether(data)

    ip, message = (IP, ICMP) if family == 4 else (IPv6, ICMPv6EchoRequest)
    assert (frame[ip].src, frame[ip].dst) == (far, near)
    assert frame[message].type == (8 if family == 4 else 128)
    for layer, field in ((ip, "chksum"), (message, "chksum" if family == 4 else "cksum")):
        if field in frame[layer].fields:
            del frame[layer].fields[field]
    assert bytes(frame) == data
    assert len(data) == 14 + (20 if family == 4 else 40) + 8 + 137


def ether(payload: Any, destination: str = MAC) -> Any:
    return Ether(src=MAC, dst=destination) / payload


@pytest.mark.parametrize(
    ("frame", "kind", "ip_bytes"),
    [
        (
            ether(IP(src="192.0.2.1", dst="192.0.2.2") / TCP(sport=7, dport=9) / bytes(11)),
            Kind(False, "ipv4", False, "192.0.2.1", "192.0.2.2", 6, 7, 40, True),
            51,
        ),
        (
            ether(IPv6(src="::1", dst="::2") / TCP(sport=7, dport=9, options=[("SAckOK", b"")])),
            Kind(False, "ipv6", False, "::1", "::2", 6, 7, 64, False),
            64,
        ),
        (
            ether(IPv6(src="::1", dst="::2") / TCP(sport=7, dport=9, flags="SA")),
            Kind(False, "ipv6", False, "::1", "::2", 6, 7, 60, answers=True),
            60,
        ),
        (
            ether(IP(src="192.0.2.1", dst="224.0.0.1") / UDP() / bytes(11), "01:00:5e:00:00:01"),
            Kind(False, "ipv4", True, "192.0.2.1", "224.0.0.1", 17),
            39,
        ),
        (
            ether(IPv6(src="::1", dst="::2") / IPv6ExtHdrFragment(m=1) / UDP() / bytes(16)),
            Kind(False, "ipv6", False, "::1", "::2", 44),
            72,
        ),
        (
            # A piece of a TCP segment has no header of its own.
            ether(IP(src="192.0.2.1", dst="192.0.2.2", frag=5, proto=6) / bytes(30)),
            Kind(False, "ipv4", False, "192.0.2.1", "192.0.2.2", 6),
            50,
        ),
        (ether(IPv6(src="::", dst="ff02::1") / ICMPv6ND_NS(), "33:33:00:00:00:01"),
         Kind(False, "ipv6", True, "::", "ff02::1", 58), 64),
        (ether(ARP(), BROADCAST), Kind(False, "arp", True), 0),
        (Dot3(src=MAC, dst="01:80:c2:00:00:00") / STP(), Kind(False, "other", True), 0),
    ],
)  # fmt: skip
def test_classified(frame: Any, kind: Kind, ip_bytes: int) -> None:
    """Frames as another encoder makes them."""
    data = bytes(frame)

    assert witness.classify(data, False) == (kind, Count(1, len(data), ip_bytes))


def test_port_is_the_near_ends() -> None:
    """Of what goes to the near end it is the destination's."""
    data = bytes(ether(IP() / TCP(sport=7, dport=9)))

    assert witness.classify(data, True)[0].near_port == 9


def test_padding_is_not_of_the_packet() -> None:
    """Short frames are padded; the IP header knows."""
    data = bytes(ether(IP() / UDP() / bytes(1))) + bytes(17)

    assert witness.classify(data, True)[1] == Count(1, 60, 29)


def test_seen_in_between() -> None:
    """What is handed over as JSON comes back, and earlier sums are taken off."""
    arp, ip = bytes(ether(ARP())), bytes(ether(IP() / UDP()))
    seen: witness.Seen = {}
    witness.tally([(arp, True), (ip, True)], seen)
    before = witness.unpacked(witness.packed(seen))
    witness.tally([(ip, True), (ip, True)], seen)

    assert witness.since(seen, before) == {witness.classify(ip, True)[0]: Count(2, 84, 56)}


# -- the scene -------------------------------------------------------------------------------------------


def test_leftovers() -> None:
    """The marked addresses, and the IPv4 ones that they repeat; nobody else's, however similar."""
    targets = [
        "10.0.0.0/8", "192.0.2.249", "192.0.2.250", "198.51.100.249", "2001:db8::1", "2001:db8:6e6d::/48",
        "2001:db8:6e6d:7465:7374:0:c000:2f9", "2001:db8:6e6d:7465:7374:0:c000:2fa",
    ]  # fmt: skip

    assert scene.leftovers(targets) == [targets[6], targets[7], "192.0.2.249", "192.0.2.250"]
    assert scene.leftovers(targets[:6]) == []
    assert scene.leftovers([targets[6]]) == [targets[6]]


def test_targets_are_marked_without_ipv6() -> None:
    """A machine without IPv6 can have targets of it: so they are found again."""
    alone = scene.Addresses(near4="203.0.113.249", far4="203.0.113.250")

    assert scene.leftovers(alone.targets) == [*alone.targets[2:], *alone.targets[:2]]


def test_addresses_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that lead somewhere and addresses that are targets are passed over."""
    monkeypatch.setattr("netmonctl.selftest.iproute.is_free", lambda network: network != scene.NETWORKS4[0])

    chosen = scene.choose_addresses(["198.51.100.250"], ipv6=False)

    assert (chosen.near4, chosen.near6) == ("203.0.113.249", "")
    with pytest.raises(CtlError, match="are in use here"):
        scene.choose_addresses(["198.51.100.250", "203.0.113.249"], ipv6=False)


def test_ipv6_networks_are_for_documentation() -> None:
    """RFC 3849 and RFC 9637."""
    documentation = [ip_network("2001:db8::/32"), ip_network("3fff::/20")]
    for network, of in zip(scene.NETWORKS6, documentation, strict=True):
        assert ip_network(network).subnet_of(of)  # type: ignore[arg-type]


# -- the command -----------------------------------------------------------------------------------------


def test_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked and nothing is made."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    ran = Ran(Fake({}), "selftest")

    assert (ran.code, ran.stdout) == (ExitCode.NOT_ALLOWED, "")
    assert ran.stderr == "netmonctl: selftest makes a network namespace: run it as root, with sudo\n"
    assert ran.fake.calls == []


@pytest.mark.parametrize(
    ("number", "error", "code"),
    [
        (signal.SIGINT, KeyboardInterrupt, None),
        (signal.SIGTERM, SystemExit, 143),
        (signal.SIGHUP, SystemExit, 129),
    ],
)
def test_interrupted(number: signal.Signals, error: type[BaseException], code: int | None) -> None:
    """Only where it is convenient, and handlers are as they were."""
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    done = []

    def work() -> None:
        with Interruption() as interruption:
            os.kill(os.getpid(), number)
            done.append("went on")
            interruption.check()
            done.append("too far")

    with pytest.raises(error) as raised:
        work()

    assert done == ["went on"]
    assert getattr(raised.value, "code", None) == code
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers


def test_interrupted_at_the_end() -> None:
    """At the latest when the block is left."""
    with pytest.raises(KeyboardInterrupt), Interruption():
        os.kill(os.getpid(), signal.SIGINT)
