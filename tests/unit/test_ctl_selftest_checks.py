"""The lines of netmonctl selftest: two pictures and a witness compared, and shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from netmonctl.render import Style
from netmonctl.selftest import plan, report, scene, witness
from netmonctl.selftest.checks import Check, Trial, checks, disturbance
from netmonctl.selftest.figures import NOTHING, Figures, difference, total
from netmonctl.selftest.picture import Picture
from netmonctl.selftest.plan import Flow
from netmonctl.selftest.traffic import Ports
from netmonctl.selftest.witness import Count, Kind

ADDRESSES = scene.Addresses(near4="192.0.2.249", far4="192.0.2.250", near6="2001:db8::1", far6="2001:db8::2")


# -- a test in which everything went well ------------------------------------------------------------------


def row(figures: Figures, stack: Figures | None = None, **others: Any) -> dict[str, Any]:
    """A row of netmond's."""
    stack = stack or figures
    return {
        **figures._asdict(),
        **{name.replace("_", "_stack_"): value for name, value in stack._asdict().items()},
        **others,
    }


#: Of each connection, in and out: segments, of which carry data, and what the stack made of them.
SEGMENTS, WITH_DATA, MERGED = 31, 23, 11
HEADERS = {4: 52, 6: 72}
PORTS = {flow.name: Ports(40000 + number, 50000 + number) for number, flow in enumerate(plan.FLOWS)}
PORTS |= {
    flow.name: replace(PORTS[flow.name], near=30000 + flow.family) for flow in plan.FLOWS if flow.socket
}


def tcp_wire(flow: Flow) -> Figures:
    headers = SEGMENTS * HEADERS[flow.family]
    return Figures(SEGMENTS, flow.answered[1] + headers, SEGMENTS, flow.sent[1] + headers)


def tcp_stack(flow: Flow) -> Figures:
    saved = (SEGMENTS - MERGED) * HEADERS[flow.family]
    on_wire = tcp_wire(flow)
    return Figures(MERGED, on_wire.in_bytes - saved, MERGED, on_wire.out_bytes - saved)


def flow_wire(flow: Flow) -> Figures:
    return flow.wire if flow.protocol == "udp" else tcp_wire(flow)


def flow_stack(flow: Flow) -> Figures:
    return flow.stack if flow.protocol == "udp" else tcp_stack(flow)


def seen() -> witness.Seen:
    """The witness of a test in which everything went well."""
    found: witness.Seen = {}
    for flow in plan.FLOWS:
        near, far = ADDRESSES.pair(flow.family)
        figures = flow_wire(flow)
        for inward, packets, size in ((True, *figures[:2]), (False, *figures[2:])):
            ends = (far, near) if inward else (near, far)
            if flow.protocol == "udp":
                kind = Kind(inward, f"ipv{flow.family}", False, *ends, 17)
                add(found, kind, packets, size)
                continue
            header = HEADERS[flow.family]
            kind = Kind(inward, f"ipv{flow.family}", False, *ends, 6, PORTS[flow.name].near, header, True)
            bare = packets - WITH_DATA
            add(found, kind, WITH_DATA, size - bare * header)
            add(found, kind._replace(carries=False), bare - inward, (bare - inward) * header)
            if inward:  # the near end opened the connection
                add(found, kind._replace(carries=False, answers=True), 1, header)
    for inward in (True, False):
        found[Kind(inward, "arp", inward)] = Count(7, 7 * 42, 0)
    return found


def add(found: witness.Seen, kind: Kind, packets: int, size: int) -> None:
    found[kind] = found.get(kind, Count(0, 0, 0)) + Count(packets, size + 14 * packets, size)


def classes(of: witness.Witness) -> dict[str, int]:
    chosen: dict[str, Callable[[Kind], bool]] = {
        "ipv4": lambda kind: kind.type == "ipv4",
        "ipv6": lambda kind: kind.type == "ipv6",
        "arp": lambda kind: kind.type == "arp",
        "other": lambda kind: kind.type == "other",
        "multicast": lambda kind: kind.multicast,
    }
    figures = {name: of.frames(each)._asdict() for name, each in chosen.items()}
    return {
        f"{key.partition('_')[0]}_{name}_{key.partition('_')[2]}": value
        for name, each in figures.items()
        for key, value in each.items()
    }


def before() -> Picture:
    """Nothing has been counted of the test's; the interface has seen something."""
    still = witness.Witness({})
    targets = {address: row(NOTHING) for address in ADDRESSES.targets}
    interface = row(NOTHING, classes=classes(still))
    return Picture(
        kernel=Figures(3, 5, 7, 11),
        seen={},
        interface=interface,
        books={"kernel": Figures(1, 2, 3, 4), "unattributed": Figures(0, 1, 0, 0)},
        targets=targets,
        losses={"meter.full": 3, "output.csv.dropped": 1},
    )


def after() -> Picture:
    """All of the test has been, and rightly."""
    of = witness.Witness(seen())
    wire, stack = total(map(flow_wire, plan.FLOWS)), total(map(flow_stack, plan.FLOWS))
    return Picture(
        kernel=total([of.frames(), before().kernel]),
        seen=of.seen,
        near_user=row(wire, stack),
        far_user=row(wire.mirrored),
        processes=[row(wire)],
        units=[row(wire, cgroup="/a/b.scope")],
        flows=[
            row(
                flow_wire(flow), flow_stack(flow), kind=flow.kind, protocol=flow.protocol,
                local_port=PORTS[flow.name].near, remote=ADDRESSES.pair(flow.family)[1],
                remote_port=PORTS[flow.name].far,
            )
            for flow in plan.FLOWS
        ],
        interface=row(of.frames(), classes=classes(of)),
        books={**before().books, "kernel": total([of.frames(), before().books["kernel"]])},
        targets={address: row(of.address(address)) for address in ADDRESSES.targets},
        losses={"meter.full": 3, "output.csv.dropped": 1},
    )  # fmt: skip


def trial(later: Picture | None = None, **changes: Any) -> Trial:
    made = Trial(
        flows=plan.FLOWS, ports=PORTS, addresses=ADDRESSES, before=before(), after=later or after(),
        merges=False, hidden_answers=False, pid=7, cgroup="/a/b.scope", off={},
    )  # fmt: skip
    return replace(made, **changes)


def failing(found: Iterable[Check]) -> set[str]:
    return {check.name for check in found if check.failed}


def results(found: Iterable[Check]) -> set[str]:
    return {check.result for check in found}


def test_everything_right() -> None:
    """Every line is ok, and no line has the name of another."""
    found = checks(trial())

    assert disturbance(trial()) == ""
    assert results(found) == {"ok"}
    assert len({check.name for check in found}) == len(found) == 33


def more(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {**values, key: values[key] + 1}


def test_user_is_wrong() -> None:
    """By one byte, in one direction: his line alone."""
    picture = after()
    assert picture.near_user is not None

    found = checks(trial(replace(picture, near_user=more(picture.near_user, "in_bytes"))))

    assert failing(found) == {"user"}


def test_user_is_missing() -> None:
    """No row at all is nothing counted."""
    assert failing(checks(trial(replace(after(), near_user=None)))) == {"user", "user, stack"}


def test_hidden_answers() -> None:
    """Of old kernels that the meter cannot see the answer to an IPv6 connection is no mistake of its own."""
    picture = after()
    assert picture.far_user is not None
    answer = {"out_packets": 1, "out_bytes": HEADERS[6]}
    blind = replace(
        picture,
        far_user={name: value - answer.get(name, 0) for name, value in picture.far_user.items()},
    )

    assert failing(checks(trial(blind, hidden_answers=True))) == set()
    assert failing(checks(trial(blind))) == {"user at the far end"}
    assert failing(checks(trial(hidden_answers=True))) == {"user at the far end"}


@pytest.mark.parametrize("key", ["out_stack_bytes", "in_stack_bytes"])
def test_stack_of_a_connection_is_wrong(key: str) -> None:
    """How many segments went together nobody knows from outside; what each saves is a header."""
    picture = after()
    flows = [more(each, key) if each["protocol"] == "tcp" else each for each in picture.flows]

    found = checks(trial(replace(picture, flows=flows)))

    assert failing(found) == {"flow tcp 4, stack", "flow tcp 6, stack"}


def test_more_in_the_stack_than_on_the_wire() -> None:
    """Cannot be."""
    picture = after()
    flows = [
        {**each, "in_stack_packets": SEGMENTS + 1} if each["protocol"] == "tcp" else each
        for each in picture.flows
    ]

    assert "flow tcp 4, stack" in failing(checks(trial(replace(picture, flows=flows))))


def test_headers_that_differ() -> None:
    """After a loss some segments have options that others have not: the stack cannot be checked."""
    picture = after()
    (kind,) = (
        kind
        for kind in picture.seen
        if kind.type == "ipv4" and kind.protocol == 6 and kind.carries and kind.inward
    )
    changed = {**picture.seen, kind._replace(headers=64): Count(0, 0, 0)}
    changed[kind._replace(headers=64)] = Count(1, 78, 64)
    changed[kind] = Count(*(a - b for a, b in zip(changed[kind], (1, 78, 64), strict=True)))

    found = {check.name: check for check in checks(trial(replace(picture, seen=changed)))}

    assert failing(found.values()) == set()
    assert [name for name, check in found.items() if check.reason] == ["user, stack", "flow tcp 4, stack"]


def test_peer_counted_for_the_socket() -> None:
    """What is missing in a peer's row is too much in its socket's."""
    picture = after()
    place = next(n for n, each in enumerate(picture.flows) if each["kind"] == "peer")
    flows = list(picture.flows)
    flows[place] = {**flows[place], "kind": "socket", "remote": "", "remote_port": 0}

    found = checks(trial(replace(picture, flows=flows)))

    assert failing(found) == {"flow peer 4a", "flow peers 4, beside its peers'"}


def test_other_unit() -> None:
    """A row of another control group does not count, however right its figures are."""
    picture = after()
    units = [{**each, "cgroup": "/a"} for each in picture.units]

    assert failing(checks(trial(replace(picture, units=units)))) == {"unit"}


def test_in_a_container() -> None:
    """Process and control group may have other names for netmond: their lines are not checked."""
    found = checks(trial(pid=0, cgroup=""))

    assert [check.name for check in found if check.reason] == ["process", "unit"]
    assert results(found) == {"ok", "not checked"}


def test_class_is_wrong() -> None:
    """One frame in the wrong class: the lines of both."""
    picture = after()
    assert picture.interface is not None
    wrong = dict(picture.interface["classes"])
    wrong["in_arp_packets"] -= 1
    wrong["in_other_packets"] += 1

    found = checks(trial(replace(picture, interface={**picture.interface, "classes": wrong})))

    assert failing(found) == {"class arp", "class other"}


def test_earlier_totals_are_taken_off() -> None:
    """Of an earlier test, of the same user."""
    earlier = Figures(1, 2, 3, 4)
    picture = after()
    assert picture.near_user is not None
    user = row(
        total([earlier, Figures(*(picture.near_user[name] for name in Figures._fields))]),
        total([earlier, total(map(flow_stack, plan.FLOWS))]),
    )

    found = checks(trial(replace(picture, near_user=user), before=replace(before(), near_user=row(earlier))))

    assert failing(found) == set()


def test_books_that_do_not_close() -> None:
    """A byte that is nobody's, and books without a line that there should be."""
    picture = after()
    more_left = {**picture.books, "unattributed": Figures(0, 2, 0, 0)}
    none_left = {"kernel": picture.books["kernel"]}

    assert failing(checks(trial(replace(picture, books=more_left)))) == {"books, unattributed"}
    assert failing(checks(trial(replace(picture, books=none_left)))) == {"books, unattributed"}


def test_bytes_that_veth_forgets() -> None:
    """Where the near end merges, the kernel's count of bytes that came in is no witness; the others are."""
    forgetful, wrong = _kernel_without("in_bytes"), _kernel_without("out_bytes")

    assert failing(checks(trial(forgetful, merges=True))) == set()
    assert failing(checks(trial(forgetful))) == {"interface nmtest0, kernel"}
    assert failing(checks(trial(wrong, merges=True))) == {"interface nmtest0, kernel"}


def _kernel_without(name: str) -> Picture:
    """The kernel counts 14 bytes less, and so do the books, which are about its figures."""
    picture = after()
    books = picture.books["kernel"]
    return replace(
        picture,
        kernel=picture.kernel._replace(**{name: getattr(picture.kernel, name) - 14}),
        books={**picture.books, "kernel": books._replace(**{name: getattr(books, name) - 14})},
    )


def test_losses_that_grow() -> None:
    """May be of other traffic: told, not judged."""
    losses = {"meter.full": 5, "interfaces.new": 7, "output.csv.dropped": 9}
    (check,) = (check for check in checks(trial(replace(after(), losses=losses))) if check.reason)

    assert check.name == "losses"
    assert check.reason == "meter.full +2, interfaces.new +7: perhaps of other traffic"


def test_parts_that_are_off() -> None:
    """Each group of lines gives way to one with the reason."""
    off = {"meter": "no BTF", "interfaces": "not here", "books": "none", "targets": "too many", "ipv6": "no"}

    found = checks(trial(off=off))

    assert [(check.name, check.reason) for check in found if check.reason] == [
        ("users, processes, units, flows", "no BTF"),
        ("interfaces", "not here"),
        ("books", "none"),
        ("targets", "too many"),
        ("IPv6", "no"),
    ]
    assert results(found) == {"not checked", "ok"}


def test_frames_lost_on_the_way() -> None:
    """There is nothing to compare, and it is not netmond's fault."""
    picture = after()
    kernel = picture.kernel._replace(in_packets=picture.kernel.in_packets - 1)

    assert "frames were lost" in disturbance(trial(replace(picture, kernel=kernel)))


def test_datagrams_of_others() -> None:
    """Likewise."""
    picture = after()
    kind = Kind(True, "ipv4", False, *ADDRESSES.pair(4)[::-1], 17)
    changed = {**picture.seen, kind: picture.seen[kind] + Count(1, 60, 46)}
    kernel = total([picture.kernel, Figures(1, 60, 0, 0)])

    assert "not the test's" in disturbance(trial(replace(picture, seen=changed, kernel=kernel)))


# -- the report ------------------------------------------------------------------------------------------

LINES = [
    Check(name="user", expected=Figures(1, 29, 2, 58), counted=Figures(1, 29, 2, 58)),
    Check(name="unit", expected=Figures(1, 29, 2, 58), counted=Figures(1, 30, 2, 58)),
    Check(
        name="kernel",
        expected=Figures(1, 7, 2, 58),
        counted=Figures(1, 29, 2, 58),
        unknown=frozenset({"in_bytes"}),
    ),
    Check(name="losses", reason="full +2"),
]


def test_text() -> None:
    """One aligned line each; what was counted where it is not what was expected."""
    assert report.lines(LINES, Style(width=20), bare=False) == [
        "CHECK   RESULT       IN (PACKETS/BYTES)  OUT (PACKETS/BYTES)",
        "user    ok           1/29                2/58",
        "unit    FAILED       1/29, counted 1/30  2/58",
        "kernel  ok           1/-                 2/58",
        "losses  not checked",
        "",
        "losses: not checked: full +2",
        "",
        "3 checks, 1 not checked: 1 FAILED.",
    ]


def test_text_for_scripts() -> None:
    """--no-legend: neither header nor summary."""
    assert report.lines(LINES[:2], Style(), bare=True) == [
        "user   ok      1/29                2/58",
        "unit   FAILED  1/29, counted 1/30  2/58",
    ]


def test_summary_of_success() -> None:
    assert report.summary(LINES[:1]) == "1 check: every counter is right."


def test_data() -> None:
    """Either figures, null where there is no witness, or a reason."""
    found = report.data(LINES)

    assert found[2]["expected"] == {"in_packets": 1, "in_bytes": None, "out_packets": 2, "out_bytes": 58}
    assert found[3] == {"check": "losses", "result": "not checked", "reason": "full +2"}


def test_differences() -> None:
    assert difference(Figures(5, 7, 11, 13), Figures(1, 2, 3, 4)) == (4, 5, 8, 9)
