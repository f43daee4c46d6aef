"""What became of RDMA ports between two snapshots, as messages for the journal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from netmond.model import Rdma, RdmaPort
from netmond.outputs.log import INFO, NOTICE, WARNING
from netmond.outputs.messages import MessageId

_ACTIVE = "active"


class Event(NamedTuple):
    """One message; see `netmond.outputs.journal` for its fields."""

    kind: MessageId
    priority: int
    message: str
    fields: dict[str, str]


def changes(before: Rdma, now: Rdma) -> Iterator[Event]:
    """Ports that were found, that are in another state, and that are gone, in this order."""
    was = {(port.device, port.port): port for port in before.ports}
    there = {(port.device, port.port): port for port in now.ports}
    for key, port in there.items():
        old = was.get(key)
        facts = ", ".join(filter(None, (port.link_layer, port.netdev, _speed(port.speed))))
        if old is None:
            yield _event(MessageId.RDMA_PORT_FOUND, INFO, port, f"found: {port.state}; {facts}")
        elif port.state != old.state:
            fell = old.state == _ACTIVE
            physical = f" ({port.physical_state})" if port.physical_state else ""
            yield _event(
                MessageId.RDMA_PORT_STATE, WARNING if fell else NOTICE, port,
                f"is {port.state}{physical}, it was {old.state}",
                NETMOND_PREVIOUS_STATE=old.state,
            )  # fmt: skip
    for key, port in was.items():
        if key not in there:
            yield _event(MessageId.RDMA_PORT_GONE, WARNING, port, f"is gone, it was {port.state}")


def _event(kind: MessageId, priority: int, port: RdmaPort, text: str, **more: str) -> Event:
    fields = {
        "NETMOND_RDMA_DEVICE": port.device, "NETMOND_RDMA_PORT": str(port.port),
        "NETMOND_INTERFACE": port.netdev, "NETMOND_STATE": port.state,
    }  # fmt: skip
    return Event(kind, priority, f"RDMA port {port.device}/{port.port} {text}", {**fields, **more})


def _speed(bits: int) -> str:
    return f"{bits / 1e9:g} Gbit/s" if bits else ""
