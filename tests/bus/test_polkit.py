"""What polkit is asked, when, and what becomes of its answers: with a polkit that does as the test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from netmond.bus import names, polkit
from netmond.bus.authority import Action
from netmond.model import FeatureState
from tests.bus.conftest import Host
from tests.bus.fakepolkit import CHALLENGE, NO, YES, FakePolkit
from tests.bus.private import Caller, CallError, LoopThread, code, until
from tests.bus.snapshots import ALICE, BOB

OPTIONS = ("a{sv}",)
TARGETS = ("as", "a{sv}")
ALL = {"scope": ["s", "all"]}
INTERACTIVE = 4  #: the message flag ALLOW_INTERACTIVE_AUTHORIZATION


@pytest.fixture
def fake(host: Host, loop: LoopThread) -> Iterator[FakePolkit]:
    """A polkit on netmond's bus that refuses everything until told otherwise."""
    found = FakePolkit(loop, host.bus.address)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def later() -> Iterator[Callable[..., Future[Any]]]:
    """Makes a call that is answered later."""
    with ThreadPoolExecutor() as pool:
        yield pool.submit


def denial(call: Callable[[], Any]) -> str:
    """The text with which a call is denied."""
    with pytest.raises(CallError) as caught:
        call()
    assert code(caught.value) == "AccessDenied"
    return caught.value.text


def test_what_is_asked(fake: FakePolkit, alice: Caller) -> None:
    """The subject is the caller's unique bus name, the action that of the member."""
    denial(lambda: alice.call("ListTargets", OPTIONS, {}))
    denial(lambda: alice.call("Reload", OPTIONS, {}))

    assert [question[:4] for question in fake.questions] == [
        ("system-bus-name", alice.name, "org.netmond1.read-all", False),
        ("system-bus-name", alice.name, "org.netmond1.manage", False),
    ]
    assert Action.CAPTURE.id == "org.netmond1.capture"


def test_allowed(host: Host, fake: FakePolkit, alice: Caller) -> None:
    """What polkit allows is done, and lists show everybody's rows without being asked to."""
    fake.silent = YES

    assert alice.call("AddTargets", TARGETS, ["192.0.2.7"], {}) == [names.target_path("192.0.2.7")]
    assert alice.call("GetUser", ("u", "a{sv}"), BOB, {})["uid"] == BOB
    assert alice.call("ListFlows", OPTIONS, {})[1]["scope"] == "all"
    assert alice.call("ListFlows", OPTIONS, ALL)[1]["scope"] == "all"


def test_denied(fake: FakePolkit, alice: Caller) -> None:
    """The error names what is denied, the action and the remedy."""
    assert denial(lambda: alice.call("Reload", OPTIONS, {})) == (
        "you may not change targets, interfaces and settings: polkit refuses org.netmond1.manage;"
        " become root or join group operator"
    )


def test_authentication_takes_an_interactive_call(fake: FakePolkit, alice: Caller) -> None:
    """Without the flag nobody is asked for a password: the error says what would do."""
    fake.silent, fake.interactive = CHALLENGE, YES

    assert denial(lambda: alice.call("Reload", OPTIONS, {})) == (
        "you may not change targets, interfaces and settings without authentication (org.netmond1.manage),"
        " which this call does not allow for: use netmonctl on a terminal, or become root or join group"
        " operator"
    )
    assert alice.call("Reload", OPTIONS, {}, flags=INTERACTIVE) == ["netmond.toml: unknown key colour"]
    assert [question.interactive for question in fake.questions] == [False, True]


def test_authentication_failed_or_impossible(fake: FakePolkit, alice: Caller) -> None:
    """A wrong password is a refusal; that there is no agent to ask for one is told."""
    assert "polkit refuses" in denial(lambda: alice.call("Reload", OPTIONS, {}, flags=INTERACTIVE))

    fake.interactive = CHALLENGE

    assert "no polkit agent" in denial(lambda: alice.call("Reload", OPTIONS, {}, flags=INTERACTIVE))


def test_own_figures_never_prompt(fake: FakePolkit, alice: Caller) -> None:
    """Asked for explicitly, polkit has no say; the choice of a scope asks it, silently."""
    alice.call("ListFlows", OPTIONS, {"scope": ["s", "own"]}, flags=INTERACTIVE)
    alice.call("GetUser", ("u", "a{sv}"), ALICE, {}, flags=INTERACTIVE)
    alice.call("Describe", flags=INTERACTIVE)
    assert fake.questions == []

    fake.silent = CHALLENGE
    for list_ in ("ListUsers", "ListUnits", "ListProcesses", "ListFlows"):
        assert alice.call(list_, OPTIONS, {}, flags=INTERACTIVE)[1]["scope"] == "own"
    alice.call("Introspect", path=names.TARGETS_PATH, interface=names.INTROSPECTABLE, flags=INTERACTIVE)
    assert [question.interactive for question in fake.questions] == [False] * 5


def test_root_and_group_are_never_asked_about(fake: FakePolkit, member: Caller, admin: Caller) -> None:
    """netmond itself allows them, so a polkit that hangs does not hinder them."""
    fake.silent = fake.interactive = None

    for caller in (member, admin):
        caller.call("Reload", OPTIONS, {})
        assert caller.call("ListUsers", OPTIONS, ALL)[1]["scope"] == "all"

    assert fake.questions == []


def test_one_password_for_one_call(host: Host, fake: FakePolkit, alice: Caller) -> None:
    """However many properties, rows and checks a call has: once allowed, no question is repeated."""
    host.monitor.have("192.0.2.7")
    fake.silent, fake.interactive = CHALLENGE, YES
    where: dict[str, Any] = {"path": names.target_path("192.0.2.7"), "flags": INTERACTIVE}

    alice.call("GetAll", ("s",), names.TARGET, interface=names.PROPERTIES, **where)
    alice.call("Describe", interface=names.TARGET, **where)
    rows, meta = alice.call("ListFlows", OPTIONS, {"user": ["s", str(BOB)]}, flags=INTERACTIVE)

    assert [question.interactive for question in fake.questions] == [True] * 3
    assert meta["scope"] == "all"
    assert rows


def test_a_grant_is_for_one_call(fake: FakePolkit, alice: Caller) -> None:
    """The next call of the same connection is asked about again: polkit decides how long it remembers."""
    fake.silent, fake.interactive = CHALLENGE, YES

    alice.call("Reload", OPTIONS, {}, flags=INTERACTIVE)
    denial(lambda: alice.call("Reload", OPTIONS, {}))

    assert len(fake.questions) == 2


@pytest.mark.parametrize("path", ["192.0.2.7", "192.0.2.11"])
def test_targets_that_exist_and_others_look_alike(
    host: Host, fake: FakePolkit, alice: Caller, path: str
) -> None:
    """Whatever is called, right or wrong: the answer does not tell which targets there are."""
    host.monitor.have("192.0.2.7")
    where: dict[str, Any] = {"path": names.target_path(path)}
    expected = (
        "you may not see other users' figures, flows and targets: polkit refuses org.netmond1.read-all;"
        " become root or join group operator"
    )

    for interface, member, types, values in (
        (names.TARGET, "Describe", (), ()),
        (names.TARGET, "Describe", ("s",), ("x",)),
        (names.TARGET, "Divine", (), ()),
        (names.TARGET, "Remove", OPTIONS, ({},)),
        ("org.netmond1.Oracle", "Describe", (), ()),
        (None, "Describe", (), ()),
        (names.INTROSPECTABLE, "Introspect", (), ()),
        (names.PROPERTIES, "GetAll", ("s",), (names.TARGET,)),
        (names.PROPERTIES, "Set", ("s", "s", "v"), (names.TARGET, "Address", ["s", "x"])),
    ):
        assert denial(lambda: alice.call(member, types, *values, interface=interface, **where)) == expected  # noqa: B023


def test_no_polkit(host: Host, alice: Caller, member: Caller) -> None:
    """Own figures are there all the same, and so is the group's authority; others are told who may."""
    assert denial(lambda: alice.call("Reload", OPTIONS, {})) == (
        "only root and members of group operator may change targets, interfaces and settings"
        " (org.netmond1.manage): polkit is not there"
    )
    assert alice.call("ListUsers", OPTIONS, {}, flags=INTERACTIVE)[1]["scope"] == "own"
    assert member.call("ListUsers", OPTIONS, {})[1]["scope"] == "all"


def test_feature(host: Host, fake: FakePolkit, alice: Caller) -> None:
    """The feature list tells, from the start, whether polkit is there, and what is wrong with it."""
    authority = host.service.authority
    assert authority.feature().state is FeatureState.OFF
    assert authority.feature().reason.startswith(
        "polkit is not there: only root and members of group operator"
    )

    fake.silent = YES
    alice.call("Reload", OPTIONS, {})
    assert authority.feature().state is FeatureState.ON

    fake.error = ("org.freedesktop.PolicyKit1.Error.Failed", "Action org.netmond1.manage is not registered")
    text = denial(lambda: alice.call("Reload", OPTIONS, {}))
    assert text.endswith("polkit cannot tell (Action org.netmond1.manage is not registered)")
    assert authority.feature().state is FeatureState.DEGRADED
    assert authority.feature().reason.startswith("polkit cannot tell")


@pytest.mark.parametrize(
    "error",
    [
        "org.freedesktop.DBus.Error.Spawn.ChildExited",
        "org.freedesktop.DBus.Error.TimedOut",
        "org.freedesktop.systemd1.UnitMasked",
        "org.freedesktop.systemd1.LoadFailed",
    ],
)
def test_polkit_that_cannot_be_started(fake: FakePolkit, alice: Caller, error: str) -> None:
    """Masked, broken or removed without the bus knowing: all the same to the caller."""
    fake.error = (error, "no")

    assert denial(lambda: alice.call("Reload", OPTIONS, {})).endswith(": polkit is not there")


def test_slow_polkit(
    host: Host,
    fake: FakePolkit,
    alice: Caller,
    admin: Caller,
    later: Callable[..., Future[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While polkit hangs, others are answered; who waits is told in the end, and the question withdrawn."""
    monkeypatch.setattr(polkit, "SILENT_LIMIT", 1000.0)
    fake.silent = None

    call = later(alice.call, "Reload", OPTIONS, {})
    until(lambda: len(fake.questions) == 1)
    assert admin.get("FlowCount") == 6
    assert not call.done()
    host.loop.pass_time(1000.0)

    assert denial(call.result).endswith(": polkit does not answer")
    until(lambda: fake.cancelled == [fake.questions[0].cancellation])
    fake.silent = YES
    alice.call("Reload", OPTIONS, {})


def test_person_who_does_not_answer(
    fake: FakePolkit, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password prompt is taken away when the time is up; polkit is not to blame."""
    monkeypatch.setattr(polkit, "INTERACTIVE_LIMIT", 0.2)
    fake.interactive = None

    text = denial(lambda: alice.call("Reload", OPTIONS, {}, flags=INTERACTIVE))

    assert text.endswith(": nobody has authenticated in time")
    until(lambda: fake.cancelled == [fake.questions[0].cancellation])


def test_restart_of_polkit(
    host: Host, fake: FakePolkit, alice: Caller, later: Callable[..., Future[Any]]
) -> None:
    """Killed in the middle of a silent question and started again at once: the new one is asked."""
    fake.silent = None
    call = later(alice.call, "Reload", OPTIONS, {})
    until(lambda: len(fake.questions) == 1)
    successor = FakePolkit(host.loop, host.bus.address)
    successor.silent = YES
    successor.start()  # queues for the name

    fake.stop()

    assert call.result() == ["netmond.toml: unknown key colour"]
    assert len(successor.questions) == 1
    successor.stop()


def test_death_of_polkit_at_the_prompt(
    host: Host, fake: FakePolkit, alice: Caller, later: Callable[..., Future[Any]]
) -> None:
    """Nobody is prompted twice: the error says to try again, which works as soon as polkit is back."""
    fake.interactive = None
    call = later(alice.call, "Reload", OPTIONS, {}, flags=INTERACTIVE)
    until(lambda: len(fake.questions) == 1)

    fake.stop()

    assert denial(call.result).endswith(": polkit ended before it answered, try again")
    fake.interactive = YES
    fake.start()
    alice.call("Reload", OPTIONS, {}, flags=INTERACTIVE)


def test_caller_who_leaves(host: Host, fake: FakePolkit, caller_as: Callable[..., Caller]) -> None:
    """The prompt of a caller who is gone is taken away, and nothing of the caller is kept."""
    fake.interactive = None
    guest = caller_as(ALICE)
    guest.burst(3, 0, "Reload", OPTIONS, {}, flags=INTERACTIVE)
    until(lambda: len(fake.questions) == 3)

    guest.close()

    until(lambda: sorted(fake.cancelled) == sorted(question.cancellation for question in fake.questions))
    until(lambda: host.service.calls == 0)


@pytest.mark.parametrize("flags", [0, INTERACTIVE])
def test_one_user_cannot_fill_the_queue(
    fake: FakePolkit, caller_as: Callable[..., Caller], bob: Caller, admin: Caller, flags: int
) -> None:
    """Four questions of each kind may be open for a user, over all connections; the next call is refused."""
    guests = [caller_as(ALICE) for _ in range(3)]
    fake.silent = fake.interactive = None
    for guest in guests[:2]:
        guest.burst(2, 0, "Reload", OPTIONS, {}, flags=flags)
    until(lambda: len(fake.questions) == 4)

    with pytest.raises(CallError, match="too many of your calls wait for polkit"):
        guests[2].call("Reload", OPTIONS, {}, flags=flags)
    assert guests[2].call("ListFlows", OPTIONS, {"scope": ["s", "own"]})[1]["scope"] == "own"
    fake.silent = fake.interactive = YES
    bob.call("Reload", OPTIONS, {}, flags=flags)
    admin.call("Reload", OPTIONS, {})
    for guest in guests:
        guest.close()


def test_unanswered_calls_are_taken_back_when_netmond_leaves_the_bus(
    fake: FakePolkit, host: Host, alice: Caller, later: Callable[..., Future[Any]]
) -> None:
    """A password is not asked for on behalf of a service that is gone."""
    fake.interactive = None
    call = later(alice.call, "Reload", OPTIONS, {}, flags=INTERACTIVE)
    until(lambda: len(fake.questions) == 1)

    host.loop.run(host.service.close())

    with pytest.raises(CallError, match="NoReply"):
        call.result()
    until(lambda: fake.cancelled == [fake.questions[0].cancellation])


def test_refused_ones_are_not_done(host: Host, fake: FakePolkit, alice: Caller) -> None:
    """No answer of polkit but yes changes anything."""
    for answer in (NO, CHALLENGE):
        fake.silent = fake.interactive = answer
        for flags in (0, INTERACTIVE):
            denial(lambda: alice.call("Reload", OPTIONS, {}, flags=flags))  # noqa: B023

    assert host.monitor.done == []
