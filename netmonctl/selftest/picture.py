"""What netmond, the kernel and the witness say at a moment when nothing moves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netmonctl.client import Client
from netmonctl.errors import CtlError, ExitCode
from netmonctl.selftest import iproute, witness
from netmonctl.selftest.figures import Figures
from netmonctl.selftest.scene import NEAR, Scene

Row = Mapping[str, Any]

_TICKS = 20  #: within so many intervals of netmond's it must come to rest ...
_SECONDS = 20.0  #: ... and so many seconds more


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Rows as netmond gives them; what it does not have is None or missing."""

    kernel: Figures  #: of the near device
    seen: witness.Seen
    near_user: Row | None = None
    far_user: Row | None = None
    processes: Sequence[Row] = ()  #: of the near process
    units: Sequence[Row] = ()  #: what the near process did in each
    flows: Sequence[Row] = ()  #: of the near user
    interface: Row | None = None
    books: Mapping[str, Figures] = field(default_factory=dict)  #: of the near device, by line
    targets: Mapping[str, Row] = field(default_factory=dict)
    losses: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is not in every picture. `pid`: the near process as netmond knows it, 0: nobody can tell."""

    pid: int
    targets: list[str]
    books: bool


def at_rest(client: Client, scene: Scene, wanted: Wanted, check: Callable[[], None]) -> Picture:
    """A picture of the scene with no packet between its parts. CtlError: there always was one.

    check: called again and again, may raise.
    """
    status = client.describe()
    end = time.monotonic() + _SECONDS + _TICKS * status["interval"]
    while time.monotonic() < end:
        before = _outside(scene)
        _next_tick(client, check)
        picture = _inside(client, scene, wanted, *before)
        if _outside(scene) == before:
            return picture
    raise CtlError(f"{NEAR} does not come to rest: something else on this machine sends on it")


def _outside(scene: Scene) -> tuple[Figures, witness.Seen]:
    return iproute.counters(NEAR), witness.unpacked(scene.far.do("seen"))


def _inside(client: Client, scene: Scene, wanted: Wanted, kernel: Figures, seen: witness.Seen) -> Picture:
    of_user, of_process = {"user": str(scene.near_uid), "limit": 0}, {"pid": wanted.pid, "limit": 0}
    interfaces = client.listing("Interfaces", {"limit": 0, "monitored": True}).rows
    return Picture(
        kernel=kernel,
        seen=seen,
        near_user=_user(client, scene.near_uid),
        far_user=_user(client, scene.far_uid),
        processes=client.listing("Processes", of_process).rows if wanted.pid else [],
        units=client.listing("Units", of_process).rows if wanted.pid else [],
        flows=client.listing("Flows", of_user).rows,
        interface=next((row for row in interfaces if row["name"] == NEAR), None),
        books=books(client) if wanted.books else {},
        targets={address: client.target(address) for address in wanted.targets},
        losses={loss["name"]: loss["count"] for loss in client.describe()["losses"]},
    )


def books(client: Client) -> dict[str, Figures]:
    """The lines of the near device's books. CtlError: this netmond keeps none."""
    amounts: dict[str, dict[str, int]] = {}
    for row in client.listing("Books", {"interface": NEAR}).rows:
        line = amounts.setdefault(row["line"], {})
        for what in ("packets", "bytes"):
            line[f"{row['direction']}_{what}"] = row[f"line_{what}"]
    return {name: Figures(**dict.fromkeys(Figures._fields, 0) | line) for name, line in amounts.items()}


def _user(client: Client, uid: int) -> Row | None:
    try:
        return client.user(uid, 1)
    except CtlError as error:
        if error.code != ExitCode.UNKNOWN_OBJECT:
            raise
        return None


def _next_tick(client: Client, check: Callable[[], None]) -> None:
    """Waits until netmond has seen all that has happened: it answers between two ticks."""
    status = client.describe()
    started, tick = status["started"], status["tick"]
    pause = min(max(status["interval"] / 10, 0.02), 0.25)
    while status["tick"] == tick:
        check()
        time.sleep(pause)
        status = client.describe()
        if status["started"] != started:
            raise CtlError("netmond was restarted during the test; run it again")
