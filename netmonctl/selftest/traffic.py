"""The plan carried out: both ends talk, one flow after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from netmonctl.errors import CtlError
from netmonctl.selftest import plan
from netmonctl.selftest.plan import Flow
from netmonctl.selftest.scene import MACS, NEAR, Scene


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a flow took place."""

    near: int
    far: int


def exchange(scene: Scene, flows: Iterable[Flow], check: Callable[[], None]) -> Mapping[str, Ports]:
    """Everything there is to send; the sockets stay open. The near end speaks first: firewalls let answers
    in.

    check: called between flows, may raise. CtlError: it did not get through.
    """
    done: dict[str, Ports] = {}
    near_ports: dict[str, int] = {}
    for flow in flows:
        check()
        carry_out = _stream if flow.protocol == "tcp" else _datagrams
        try:
            done[flow.name] = carry_out(scene, flow, near_ports)
        except CtlError as error:
            near, far = scene.addresses.pair(flow.family)
            raise CtlError(
                f"{flow.name}: the traffic did not get through ({error}); does a firewall stop what passes"
                f" {NEAR} between {near} and {far}?"
            ) from None
    for family in (4, 6):
        near, far = scene.addresses.pair(family)
        if near:
            arp = plan.ARP_REQUESTS if family == 4 else 0
            scene.far.do(
                "knock", macs=MACS[::-1], ends=(far, near), size=plan.ECHO_SIZE, arp=arp,
                echo=plan.ECHO_REQUESTS,
            )  # fmt: skip
    return done


def _datagrams(scene: Scene, flow: Flow, near_ports: dict[str, int]) -> Ports:
    near, far = scene.addresses.pair(flow.family)
    port = scene.far.do("udp", name=flow.name, local=far)
    name = flow.socket or flow.name
    if name not in near_ports:
        peer = None if flow.socket else [far, port]
        near_ports[name] = scene.near.do("udp", name=name, local=near, peer=peer)
    to = [far, port] if flow.socket else None
    (sent, size), (answered, answer_size) = flow.sent, flow.answered
    scene.near.do("send", name=name, count=sent, size=size, to=to)
    scene.far.do("receive", name=flow.name, count=sent, size=size)
    scene.far.do("send", name=flow.name, count=answered, size=answer_size)
    scene.near.do("receive", name=name, count=answered, size=answer_size)
    return Ports(near_ports[name], port)


def _stream(scene: Scene, flow: Flow, _: dict[str, int]) -> Ports:
    near, far = scene.addresses.pair(flow.family)
    listener = f"{flow.name} listener"
    port = scene.far.do("listen", name=listener, local=far)
    scene.far.begin("accept", name=flow.name, listener=listener)
    near_port = scene.near.do("connect", name=flow.name, local=near, peer=[far, port])
    scene.far.end()
    for sender, receiver, (count, size) in (
        (scene.near, scene.far, flow.sent),
        (scene.far, scene.near, flow.answered),
    ):
        receiver.begin("receive", name=flow.name, count=count, size=size)
        sender.begin("send", name=flow.name, count=count, size=size)
        sender.end()
        receiver.end()
    return Ports(near_port, port)
