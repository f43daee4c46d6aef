"""Two pictures and the plan make lines: what was expected, what was counted. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from netmonctl.selftest.figures import NOTHING, Figures, difference, stack, total, wire
from netmonctl.selftest.picture import Picture, Row
from netmonctl.selftest.plan import Flow
from netmonctl.selftest.scene import NEAR, Addresses
from netmonctl.selftest.traffic import Ports
from netmonctl.selftest.witness import FRAGMENT, Kind, Witness, since

#: The losses of counting; others are of outputs and files.
COUNTING = ("meter.", "interfaces.")
CLASSES = ("ipv4", "ipv6", "arp", "other")
_UDP = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line. `reason`: why there is nothing to compare. `unknown`: figures that have no witness."""

    name: str
    expected: Figures = NOTHING
    counted: Figures = NOTHING
    unknown: frozenset[str] = frozenset()
    reason: str = ""

    @property
    def failed(self) -> bool:
        return not self.reason and any(
            getattr(self.expected, name) != getattr(self.counted, name)
            for name in Figures._fields
            if name not in self.unknown
        )

    @property
    def result(self) -> str:
        if self.reason:
            return "not checked"
        return "FAILED" if self.failed else "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """All there is to compare. `off`: parts of netmond, or of the test, that are missing, and why."""

    flows: Sequence[Flow]
    ports: Mapping[str, Ports]
    addresses: Addresses
    before: Picture
    after: Picture
    merges: bool  #: whether the near end merged what came in
    hidden_answers: bool  #: whether the kernel hides answers to new IPv6 connections from programs
    pid: int  #: of the near process, as netmond knows it; 0: nobody can tell
    cgroup: str  #: likewise; empty: nobody can tell
    off: Mapping[str, str]

    @property
    def witness(self) -> Witness:
        return Witness(since(self.after.seen, self.before.seen))


def disturbance(trial: Trial) -> str:
    """Why the figures cannot be compared: the traffic was not as planned. Empty: it was."""
    ends = {*trial.addresses.pair(4), *trial.addresses.pair(6)}
    witness, kernel = trial.witness, difference(trial.after.kernel, trial.before.kernel)
    frames = witness.frames()
    if (frames.in_packets, frames.out_packets) != (kernel.in_packets, kernel.out_packets):
        return "frames were lost between the two ends of the cable"
    seen = witness.packets(lambda kind: kind.protocol in (_UDP, FRAGMENT) and _between(kind, ends))
    if seen != total(flow.wire for flow in trial.flows if flow.protocol == "udp"):
        return "datagrams were sent that are not the test's"
    return ""


def _between(kind: Kind, ends: set[str]) -> bool:
    return kind.source in ends and kind.destination in ends


def checks(trial: Trial) -> list[Check]:
    """All lines."""
    return [*_meter(trial), *_interface(trial), *_books(trial), *_targets(trial), *_rest(trial)]


def _grown(
    before: Row | None, after: Row | None, measure: Callable[[Row | None], Figures] = wire
) -> Figures:
    return difference(measure(after), measure(before))


def _sums(before: Iterable[Row], after: Iterable[Row]) -> Figures:
    return difference(total(map(wire, after)), total(map(wire, before)))


# -- the meter: users, processes, units, flows -----------------------------------------------------------


def _meter(trial: Trial) -> Iterator[Check]:
    if "meter" in trial.off:
        yield Check(name="users, processes, units, flows", reason=trial.off["meter"])
        return
    before, after = trial.before, trial.after
    expected = total(_expected(trial, flow) for flow in trial.flows)
    yield Check(name="user", expected=expected, counted=_grown(before.near_user, after.near_user))
    yield _user_stack(trial)
    yield Check(
        name="user at the far end",
        expected=difference(expected, _hidden(trial)).mirrored,
        counted=_grown(before.far_user, after.far_user),
    )
    if trial.pid:
        yield Check(name="process", expected=expected, counted=_sums(before.processes, after.processes))
    else:
        yield Check(name="process", reason="in a container: netmond knows processes by other numbers")
    if trial.cgroup:
        units = [[row for row in each.units if row["cgroup"] == trial.cgroup] for each in (before, after)]
        yield Check(name="unit", expected=expected, counted=_sums(*units))
    else:
        yield Check(name="unit", reason="in a container: netmond may know its control group by another name")
    for flow in trial.flows:
        yield Check(
            name=f"flow {flow.name}",
            expected=_expected(trial, flow),
            counted=total(map(wire, _rows(trial, flow))),
        )
        if flow.protocol == "tcp":
            yield _connection_stack(trial, flow)
    for name in dict.fromkeys(flow.socket for flow in trial.flows if flow.socket):
        yield _remainder(trial, name)


def _expected(trial: Trial, flow: Flow) -> Figures:
    """Wire figures: of datagrams by the plan, of a connection by the witness."""
    return flow.wire if flow.protocol == "udp" else trial.witness.connection(trial.ports[flow.name].near)


def _hidden(trial: Trial) -> Figures:
    """What the far end sent and the kernel showed to no program of the meter."""
    if not trial.hidden_answers:
        return NOTHING
    return trial.witness.packets(lambda kind: kind.answers and kind.type == "ipv6")


def _rows(trial: Trial, flow: Flow) -> list[Row]:
    """netmond's rows of a flow; there should be one."""
    ports, remote = trial.ports[flow.name], trial.addresses.pair(flow.family)[1]
    wanted = (flow.kind, flow.protocol, ports.near, remote, ports.far)
    keys = ("kind", "protocol", "local_port", "remote", "remote_port")
    return [row for row in trial.after.flows if tuple(row[key] for key in keys) == wanted]


def _remainder(trial: Trial, name: str) -> Check:
    """The row of an unconnected socket holds what none of its peers' rows does: here, nothing."""
    near_ports = {trial.ports[flow.name].near for flow in trial.flows if flow.socket == name}
    rows = [row for row in trial.after.flows if row["kind"] == "socket" and row["local_port"] in near_ports]
    return Check(name=f"flow {name}, beside its peers'", counted=total(map(wire, rows)))


def _connection_stack(trial: Trial, flow: Flow) -> Check:
    """Nobody outside knows how many segments went together, but what each one of them saves: a header."""
    name, near_port = f"flow {flow.name}, stack", trial.ports[flow.name].near
    on_wire, counted = _expected(trial, flow), total(map(stack, _rows(trial, flow)))
    lengths = [trial.witness.headers(near_port, inward=inward) for inward in (True, False)]
    if any(len(each) != 1 for each in lengths):
        return Check(name=name, reason="segments were lost on the way, their headers differ")
    (in_header,), (out_header,) = lengths
    in_packets = min(max(counted.in_packets, 1), on_wire.in_packets)
    out_packets = min(max(counted.out_packets, 1), on_wire.out_packets)
    expected = Figures(
        in_packets,
        on_wire.in_bytes - (on_wire.in_packets - in_packets) * in_header,
        out_packets,
        on_wire.out_bytes - (on_wire.out_packets - out_packets) * out_header,
    )
    return Check(name=name, expected=expected, counted=counted)


def _user_stack(trial: Trial) -> Check:
    connections = [_connection_stack(trial, flow) for flow in trial.flows if flow.protocol == "tcp"]
    datagrams = [flow.stack for flow in trial.flows if flow.protocol == "udp"]
    return Check(
        name="user, stack",
        expected=total([*datagrams, *(each.expected for each in connections)]),
        counted=_grown(trial.before.near_user, trial.after.near_user, stack),
        reason=next((each.reason for each in connections if each.reason), ""),
    )


# -- the interface, its targets, and the rest ------------------------------------------------------------


def _interface(trial: Trial) -> Iterator[Check]:
    if "interfaces" in trial.off:
        yield Check(name="interfaces", reason=trial.off["interfaces"])
        return
    before, after, witness = trial.before.interface, trial.after.interface, trial.witness
    counted = _grown(before, after)
    yield Check(name=f"interface {NEAR}", expected=witness.frames(), counted=counted)
    yield Check(
        name=f"interface {NEAR}, kernel",
        expected=difference(trial.after.kernel, trial.before.kernel),
        counted=counted,
        # A veth that merges counts what comes in without its Ethernet header (drivers/net/veth.c).
        unknown=frozenset({"in_bytes"} if trial.merges else ()),
    )
    for name in CLASSES:
        yield _class(trial, name, lambda kind, name=name: kind.type == name)  # type: ignore[misc]
    yield _class(trial, "multicast", lambda kind: kind.multicast)


def _class(trial: Trial, name: str, chosen: Callable[[Kind], bool]) -> Check:
    def figures(row: Row | None) -> Figures:
        keys = ("in_{}_packets", "in_{}_bytes", "out_{}_packets", "out_{}_bytes")
        return Figures(*(row["classes"][key.format(name)] for key in keys)) if row else NOTHING

    return Check(
        name=f"class {name}",
        expected=trial.witness.frames(chosen),
        counted=_grown(trial.before.interface, trial.after.interface, figures),
    )


def _books(trial: Trial) -> Iterator[Check]:
    if "books" in trial.off:
        yield Check(name="books", reason=trial.off["books"])
        return
    before, after = trial.before.books, trial.after.books
    for name, expected in (
        ("kernel", difference(trial.after.kernel, trial.before.kernel)),
        ("unattributed", NOTHING),
    ):
        counted = difference(after.get(name, NOTHING), before.get(name, NOTHING))
        yield Check(name=f"books, {name}", expected=expected, counted=counted)


def _targets(trial: Trial) -> Iterator[Check]:
    if "targets" in trial.off:
        yield Check(name="targets", reason=trial.off["targets"])
        return
    for family in sorted({flow.family for flow in trial.flows}):
        for end, address in zip(("near", "far"), trial.addresses.pair(family), strict=True):
            yield Check(
                name=f"target {end} {family}",
                expected=trial.witness.address(address),
                counted=_grown(trial.before.targets[address], trial.after.targets[address]),
            )


def _rest(trial: Trial) -> Iterator[Check]:
    if "ipv6" in trial.off:
        yield Check(name="IPv6", reason=trial.off["ipv6"])
    before, after = trial.before.losses, trial.after.losses
    grown = {name: count - before.get(name, 0) for name, count in after.items() if name.startswith(COUNTING)}
    lost = ", ".join(f"{name} +{count}" for name, count in grown.items() if count)
    reason = f"{lost}: perhaps of other traffic" if lost else ""
    yield Check(name="losses", unknown=frozenset(Figures._fields), reason=reason)
