"""Captures and paths of the installed service: in its sandbox, for whom they are, and gone when they end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.kernel.deadline import DEADLINE, eventually
from tests.service.capturing import ON_LOOPBACK, Options, read_all, session, workers
from tests.service.client import Caller, CallError
from tests.service.inside import (
    answers,
    apt,
    complaints,
    ctl_json,
    journal,
    main_pid,
    moment,
    restart,
    run,
    systemctl,
)
from tests.service.matrix import CAPTURE, READ_ALL
from tests.service.people import BOB_PEER, SECRETS, Person, Scene
from tests.service.talk import DEVICE, FAR, Far, Talker
from tests.service.test_polkit import rule

pytestmark = pytest.mark.usefixtures("installed")

KINDS: dict[str, Options] = {"Capture": ON_LOOPBACK, "Path": {"drops": ["b", True]}}


@pytest.fixture(scope="module", autouse=True)
def _tools(installed: None) -> None:
    apt("install", "--no-install-recommends", "tcpdump")


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Sessions end with their tests; netmond runs, and knows of no trouble with them."""
    yield
    eventually(lambda: not workers(), "no worker is left")
    if not answers():
        restart()
    eventually(lambda: not listed(), "no session is left")
    assert not {"capture", "path"} & complaints().keys()


def listed() -> set[int]:
    """Numbers of all sessions there are: netmond knows of an end a moment after it."""
    return {row["session"] for row in ctl_json("sessions")}


def begin(person: Person, *words: str) -> subprocess.Popen[str]:
    """netmonctl in the background, as soon as its session is there."""
    before = listed()
    process = subprocess.Popen(
        ["/usr/bin/netmonctl", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **person.identity,
    )  # fmt: skip
    eventually(lambda: listed() - before, "the session is listed")
    return process


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where everybody can write."""
    with TemporaryDirectory(prefix="netmond-test-") as made:
        Path(made).chmod(0o1777)
        yield Path(made)


@pytest.mark.parametrize("who", ["carol", "root"])
def test_capture_to_a_file(scene: Scene, talkers: dict[str, Talker], directory: Path, who: str) -> None:
    """What netmonctl writes tcpdump reads: each datagram there and back, and in comments whose they are."""
    person, file = scene.people.all()[who], directory / f"{who}.pcapng"
    process = begin(person, "capture", "-i", DEVICE, "-c", "46", "-w", f"{file}", f"udp and host {FAR}")
    talkers["erin"].exchange(23, 101)
    _, said = process.communicate(timeout=DEADLINE)

    assert process.returncode == 0, said
    assert "46 packets captured" in said
    assert "0 dropped" in said
    file.chmod(0o644)
    read = run("tcpdump", "-n", "-r", str(file))
    assert len(re.findall(rf"IP .* > {FAR}\.{Far.PORT}: UDP, length 101", read.out)) == 23
    assert len(re.findall(rf"IP {FAR}\.{Far.PORT} > .*: UDP, length 101", read.out)) == 23
    owner = f"user=erin uid={talkers['erin'].uid} process=python3".encode()
    assert file.read_bytes().count(owner) == 46
    assert file.read_bytes().count(f"unit={talkers['erin'].unit}".encode()) == 46


def test_capture_by_owner(scene: Scene, talkers: dict[str, Talker]) -> None:
    """Only what belongs to a user and to a process is there, as lines."""
    words = ["-i", DEVICE, "-c", "6", "--user", "frank", "--process", "python3"]
    process = begin(scene.people.root, "capture", *words)
    talkers["erin"].exchange(5, 101)
    talkers["frank"].exchange(3, 307)
    shown, said = process.communicate(timeout=DEADLINE)

    assert process.returncode == 0, said
    assert len(shown.splitlines()) == 6
    assert shown.count("length 307") == 6


def test_path_in_the_sandbox(scene: Scene, talkers: dict[str, Talker]) -> None:
    """The stages of packets of one user's flow, with the reason where one cannot be had."""
    options: Options = {"addresses": ["as", [FAR]], "count": ["t", 100]}
    with session(scene.root, "Path", options) as path:
        talkers["erin"].exchange(23, 101)
        lines = [json.loads(line) for line in read_all(path.stream).splitlines()]
        end = path.end()

    assert end["end"] == "count"
    assert lines[0]["type"] == "stages"
    assert all(each["reason"] for each in lines[0]["stages"] if each["state"] != "on")
    tried = [text for each in lines[0]["stages"] for text in each["tried"]]
    assert [text for text in tried if re.search("denied|not permitted", text)] == []
    events = [line for line in lines if line["type"] == "event"]
    assert len(events) == 100
    assert {event["protocol"] for event in events} == {"udp"}
    assert all(FAR in (event.get("src"), event.get("dst")) for event in events)
    assert len({event["stage"] for event in events}) > 3


# -- for whom ----------------------------------------------------------------------------------------------


def allowed(caller: Caller, kind: str) -> bool:
    """Whether somebody may start a session, which has ended then; other errors than a denial are raised."""
    try:
        with session(caller, kind, KINDS[kind]) as mine:
            pass
    except CallError as error:
        if error.name != "org.netmond1.Error.AccessDenied" or CAPTURE not in error.text:
            raise
        return False
    eventually(lambda: mine.number not in listed(), "it is listed no more")
    return True


def test_rule_lets_an_ordinary_user(scene: Scene, directory: Path) -> None:
    """With a rule of polkit alice may capture what there is and end it; she sees no more figures by
    that, nor sessions of others, and bob may not."""
    with rule(CAPTURE, "alice"):
        eventually(lambda: allowed(scene.alice, "Capture"), "the rule is in force")
        assert allowed(scene.alice, "Path")
        assert not allowed(scene.bob, "Capture")
        assert not allowed(scene.bob, "Path")
        with (
            session(scene.root, "Capture", ON_LOOPBACK),
            session(scene.alice, "Capture", ON_LOOPBACK) as own,
        ):
            ((row,), meta) = scene.alice.call("ListSessions", ("a{sv}",), {})
            assert (row["session"], row["uid"], meta["total"]) == (own.number, scene.people.alice.uid, 1)
            with pytest.raises(CallError, match=READ_ALL):
                scene.alice.call("ListFlows", ("a{sv}",), {"scope": ["s", "all"]})
            done = scene.people.alice.netmonctl("sessions", "stop", str(own.number))
            assert done.returncode == 0, done.stderr
            assert own.end()["end"] == "stopped"
        file = directory / "alice.pcapng"
        done = scene.people.alice.netmonctl("capture", "-i", "lo", "-c", "5", "-w", str(file), "udp")
        assert done.returncode == 0, done.stderr
        assert file.stat().st_uid == scene.people.alice.uid
    eventually(lambda: not allowed(scene.alice, "Capture"), "the rule is gone")


def refusal(caller: Caller, number: int) -> str:
    """What StopSession says about a session that one may not end, without its number."""
    with pytest.raises(CallError) as caught:
        caller.call("StopSession", ("t", "a{sv}"), number, {})
    return str(caught.value).replace(str(number), "NUMBER")


def test_sessions_of_others_cannot_be_seen(scene: Scene) -> None:
    """Not in the list, nor by trying to end them, nor in the processes of the machine: neither that root
    captures nor what."""
    options = {**ON_LOOPBACK, "filter": ["s", f"host {BOB_PEER}"]}
    with session(scene.root, "Capture", options) as secret:
        listed = scene.alice.call("ListSessions", ("a{sv}",), {})
        texts = [json.dumps(listed), str(scene.alice.call("Describe"))]
        texts += [scene.people.alice.run("ps", "-u", "netmond", "-o", "args", "-ww").stdout]
        for form in ("off", "short"):
            done = scene.people.alice.netmonctl("sessions", f"--json={form}")
            texts += [done.stdout, done.stderr]
        assert (listed[0], listed[1]["total"]) == ([], 0)
        assert refusal(scene.alice, secret.number) == refusal(scene.alice, secret.number + 1000)
        ((seen,), _) = scene.root.call("ListSessions", ("a{sv}",), {})

    assert BOB_PEER in seen["options"]
    assert [secret for secret in SECRETS for text in texts if secret in text] == []


def test_limits(scene: Scene) -> None:
    """Whoever has as many as are allowed gets no more, and one that ends makes room."""
    with ExitStack() as stack:
        for _ in range(4):
            last = stack.enter_context(session(scene.root, "Capture", ON_LOOPBACK))
        with pytest.raises(CallError, match=r"LimitExceeded: .*user_limit"):
            scene.root.call("StartCapture", ("a{sv}",), ON_LOOPBACK)
        assert len(workers()) == 4
        scene.root.call("StopSession", ("t", "a{sv}"), last.number, {})
        eventually(lambda: last.number not in listed(), "it is listed no more")
        assert allowed(scene.root, "Path")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"interfaces": ["as", ["none0"]]}, "NoSuchInterface: .*none0"),
        ({**ON_LOOPBACK, "filter": ["s", "gibberish"]}, "InvalidArgs: .*filter"),
        ({**ON_LOOPBACK, "filter": ["s", "x" * (1 << 16)]}, "InvalidArgs: .*filter"),
        ({**ON_LOOPBACK, "buffer": ["t", 1 << 40]}, "InvalidArgs: .*buffer"),
        ({"colour": ["s", "red"]}, "InvalidArgs: .*colour"),
    ],
)
def test_bad_options(scene: Scene, options: dict[str, list[Any]], what: str) -> None:
    """One line says what is wrong, and nothing has begun."""
    with pytest.raises(CallError, match=what) as caught:
        scene.root.call("StartCapture", ("a{sv}",), options)

    assert "\n" not in caught.value.text


def test_journal(scene: Scene) -> None:
    """Who started and who ended what."""
    before = moment()
    with session(scene.carol, "Capture", ON_LOOPBACK) as own:
        scene.root.call("StopSession", ("t", "a{sv}"), own.number, {})
        own.end()

    def found() -> dict[str, str]:
        entries = journal(f"--since={before}", "--unit=netmond")
        return {
            entry["NETMOND_METHOD"].rpartition(".")[2]: entry["NETMOND_CALLER_UID"]
            for entry in entries
            if "NETMOND_METHOD" in entry
        }

    expected = {"StartCapture": str(scene.people.carol.uid), "StopSession": "0"}
    eventually(lambda: expected.items() <= found().items(), "both are in the journal")


# -- the end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_killed_worker(scene: Scene, kind: str) -> None:
    """Its programs go with it; the client sees the end, and netmond goes on and can start another."""
    with session(scene.root, kind, KINDS[kind]) as mine:
        os.kill(mine.pid, signal.SIGKILL)
        mine.wait_until_gone()
        read_all(mine.stream)
        eventually(lambda: not listed(), "it is listed no more")
    assert allowed(scene.root, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_client(scene: Scene, kind: str) -> None:
    """Who is gone reads no more: the pipe is closed, and the session ends."""
    with scene.people.root.caller() as caller, session(caller, kind, KINDS[kind]) as mine:
        caller.close()
        mine.leave()
        mine.wait_until_gone()
        assert mine.end()["end"] == "closed"


@pytest.mark.parametrize("kind", KINDS)
def test_killed_daemon(scene: Scene, kind: str) -> None:
    """The worker ends by itself, and with it what it has in the kernel; the stream is whole."""
    with session(scene.root, kind, KINDS[kind]) as mine:
        os.kill(main_pid(), signal.SIGKILL)
        mine.wait_until_gone()
        assert mine.end()["end"] == "daemon"
    eventually(answers, "the service is back")


@pytest.mark.parametrize("kind", KINDS)
def test_killed_worker_and_daemon(scene: Scene, kind: str) -> None:
    """What hangs on nothing that went with them (before Linux 6.6) is removed by the next daemon."""
    with session(scene.root, kind, KINDS[kind]) as mine:
        daemon = main_pid()
        os.kill(daemon, signal.SIGSTOP)
        os.kill(mine.pid, signal.SIGKILL)
        os.kill(daemon, signal.SIGKILL)
        eventually(lambda: main_pid() not in (0, daemon) and answers(), "the service is back")
        mine.wait_until_gone()


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_service(scene: Scene, kind: str) -> None:
    """Its end is theirs, within the time that a service has to stop, and clients are told."""
    with session(scene.root, kind, KINDS[kind]) as mine:
        systemctl("stop", "netmond")
        assert mine.pid not in workers()
        mine.wait_until_gone()  # the kernel frees maps a moment after the programs that use them
        assert mine.end()["end"] == "daemon"
        assert read_all(mine.stream)
    systemctl("start", "netmond")
    eventually(answers, "the service is back")


def test_stopped_service_and_netmonctl(scene: Scene, directory: Path) -> None:
    """Whoever captures to a file has a file that can be read, and an error that says why it ended."""
    file = directory / "stopped.pcapng"
    process = begin(scene.people.root, "capture", "-i", "lo", "-w", str(file))
    eventually(lambda: file.stat().st_size > 1000, "something is captured")
    systemctl("stop", "netmond")
    _, said = process.communicate(timeout=DEADLINE)

    assert process.returncode == 1
    assert "netmond stopped" in said
    assert run("tcpdump", "-n", "-r", str(file)).out
