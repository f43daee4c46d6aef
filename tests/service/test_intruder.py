"""What else an ordinary user might try: other people's names, files, processes and terminals."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.deadline import DEADLINE, eventually
from tests.service.client import PATIENCE, Caller, CallError
from tests.service.inside import busctl, described, journal, main_pid, run, show, systemctl
from tests.service.people import SECRETS, TARGET, Person, Scene

_ATTACKER = (Path(__file__).parent / "attacker.py").read_text()

#: For find(1): it is no error that a file goes while it looks.
_MAY_VANISH = "-ignore_readdir_race"

_PTRACE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE = 0x4206
libc.ptrace(PTRACE_SEIZE, int(sys.argv[1]), None, None)
print(os.strerror(ctypes.get_errno()))
"""


def tricked(person: Person, *words: str) -> Any:
    """The result of one of the tricks of attacker.py."""
    done = person.run("/usr/bin/python3", "-c", _ATTACKER, *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# -- on the bus -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["org.netmond1", "org.netmond1.Evil", "org.freedesktop.PolicyKit1"])
def test_names_cannot_be_taken(scene: Scene, name: str) -> None:
    """Nobody but netmond becomes netmond, neither in a queue nor by replacing it; nor its polkit."""
    for flags in (0, 2, 4):
        with pytest.raises(CallError) as caught:
            scene.alice.call_bus("RequestName", ("s", "u"), name, flags)
        assert caught.value.name == "org.freedesktop.DBus.Error.AccessDenied"


def test_sender_cannot_be_spoofed(scene: Scene) -> None:
    """A call that claims to come from root's connection, from the bus or from netmond is alice's."""
    for sender in (scene.root.name, "org.freedesktop.DBus", "org.netmond1"):
        assert tricked(scene.people.alice, "spoof", sender) == "org.netmond1.Error.AccessDenied"


def test_polkits_answer_cannot_be_forged(scene: Scene) -> None:
    """While polkit thinks, alice answers in its place: nothing of that arrives."""
    assert tricked(scene.people.alice, "polkit", "-") == "org.netmond1.Error.AccessDenied"


def test_signals_cannot_be_forged(scene: Scene) -> None:
    """Faked signals of the bus and of polkit, sent to netmond directly, change nothing for anybody."""
    pid = main_pid()
    bus = ("/org/freedesktop/DBus", "org.freedesktop.DBus")
    polkit = ("/org/freedesktop/PolicyKit1/Authority", "org.freedesktop.PolicyKit1.Authority")
    for path, interface, member, *body in (
        (*bus, "NameOwnerChanged", scene.root.name, scene.root.name, ""),
        (*bus, "NameOwnerChanged", "org.netmond1", "", ":1.1"),
        (*bus, "NameLost", "org.netmond1"),
        (*polkit, "Changed"),
        ("/org/netmond1", "org.netmond1.Manager", "Reloaded"),
    ):
        words = ["--destination=org.netmond1", "emit", path, interface, member]
        words += ["s" * len(body), *body] if body else []
        scene.people.alice.run("busctl", "--system", *words)

    assert scene.root.call("GetTarget", ("s",), TARGET)
    with pytest.raises(CallError, match="AccessDenied"):
        scene.alice.call("GetTarget", ("s",), TARGET)
    assert main_pid() == pid
    assert busctl("status", "org.netmond1").code == 0


def test_disabled_means_disabled(scene: Scene) -> None:
    """Stopped and disabled by root, netmond is not started by anybody's call."""
    systemctl("disable", "--now", "netmond")
    try:
        with pytest.raises(CallError) as caught:
            scene.alice.call("Describe")
        assert caught.value.name.startswith("org.freedesktop.DBus.Error.") or "systemd1" in caught.value.name
        assert scene.people.alice.netmonctl("status").returncode == 3
        assert show("ActiveState") == "inactive"
    finally:
        systemctl("enable", "--now", "netmond")
    eventually(lambda: _peers_known(scene.root), "everybody has traffic again")


def test_activation_flood(scene: Scene) -> None:
    """A stopped netmond is started once, however many calls ask for it, and root keeps it in hand."""
    systemctl("stop", "netmond")
    began = show("InvocationID")
    describe = ("org.netmond1", "/org/netmond1", "org.netmond1.Manager", "Describe")
    words = ["/usr/bin/busctl", "--system", f"--timeout={PATIENCE:.0f}", "call", *describe]
    calls = [
        subprocess.Popen(words, stdout=subprocess.DEVNULL, **scene.people.alice.identity) for _ in range(50)
    ]

    assert {call.wait(PATIENCE) for call in calls} == {0}
    assert show("InvocationID") != began
    assert show("NRestarts") == "0"
    systemctl("restart", "netmond")
    assert described()["tick"] >= 0
    eventually(lambda: _peers_known(scene.root), "everybody has traffic again")


def _peers_known(root: Caller) -> bool:
    return int(root.call("ListUsers", ("a{sv}",), {})[1]["total"]) >= 4


# -- files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/run/netmond",
        "/run/netmond/bpf",
        "/var/lib/netmond",
        "/var/log/netmond",
        "/var/log/netmond/users",
        "/sys/fs/bpf",
        "/sys/fs/bpf/netmond",
    ],
)
def test_directories_are_closed(scene: Scene, path: str) -> None:
    """State, pins and logs can be neither listed nor written to."""
    listed = scene.people.alice.run("ls", "-A", path)
    created = scene.people.alice.run("touch", f"{path}/planted")

    assert (listed.stdout, listed.returncode) == ("", 2), path
    assert created.returncode != 0, path


def test_files_are_closed_by_name(scene: Scene) -> None:
    """Who knows the name of a file, though no directory tells it, reads his own log and nothing else."""
    _logs_of(scene.people.bob)
    places = ("/var/lib/netmond", "/var/log/netmond", "/run/netmond")
    found = run("find", *places, _MAY_VANISH, "-type", "f").out.split()
    script = 'for file; do cat "$file" >/dev/null 2>&1 && echo "$file"; done'

    readable = scene.people.alice.run("sh", "-c", script, "sh", *found).stdout.split()

    assert len(found) > len(readable)
    assert [name for name in readable if f"/users/{scene.people.alice.uid}/" not in name] == []


def _logs_of(person: Person) -> None:
    """Wait for this person's first log."""
    directory = Path(f"/var/log/netmond/users/{person.uid}")
    eventually(lambda: directory.is_dir() and list(directory.iterdir()), f"a log of {person.name}")


def test_nothing_of_netmonds_is_writable(scene: Scene) -> None:
    """No file of the packages or of the service can be changed by an ordinary user."""
    packaged = run("dpkg-query", "--listfiles", "netmond", "netmonctl").out.split("\n")
    places = ("/var/lib/netmond", "/var/log/netmond", "/run/netmond", "/etc/netmond")
    made = run("find", *places, _MAY_VANISH).out.split("\n")
    for name in packaged + made:
        try:
            status = os.stat(name)
        except FileNotFoundError:  # minimal machines leave out documentation, netmond renames its files
            continue
        assert not status.st_mode & stat.S_IWOTH, name
        assert status.st_uid not in (scene.people.alice.uid, scene.people.bob.uid) or "/users/" in name, name
        assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID) or stat.S_ISDIR(status.st_mode), name


def test_no_file_is_left_in_shared_places(scene: Scene) -> None:
    """netmond puts nothing into /tmp, /var/tmp or /dev/shm, where others could have been first."""
    for place in ("/tmp", "/var/tmp", "/dev/shm"):
        whose = ("-user", "netmond", "-not", "-path", "*systemd-private*")
        assert run("find", place, _MAY_VANISH, *whose).out == ""


def test_root_runs_nothing_of_the_present_directory(scene: Scene) -> None:
    """Modules planted in a directory are not imported by a netmonctl that root starts there."""
    home = Path("/home/alice/planted")
    script = f"mkdir -p {home} && cd {home} && mkdir netmonctl netmond"
    for name in (
        "asyncio",
        "json",
        "argparse",
        "dbus_next",
        "socket",
        "netmonctl/__init__",
        "netmond/__init__",
    ):
        script += f' && echo \'open("/run/planted", "w")\' > {name}.py'
    assert scene.people.alice.run("sh", "-c", script).returncode == 0

    done = scene.people.root.run("/usr/bin/netmonctl", "status", cwd=str(home))
    version = scene.people.root.run("/usr/sbin/netmond", "--version", cwd=str(home))

    assert (done.returncode, version.returncode) == (0, 0), done.stderr + version.stderr
    assert not Path("/run/planted").exists()


def test_no_other_way_in(scene: Scene) -> None:
    """The daemon listens on nothing: it has no socket of a network, and of its Unix ones none accepts."""
    sockets = set()
    for entry in Path(f"/proc/{main_pid()}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile: a file that was written
            file = os.readlink(entry)
            sockets |= {file.strip("socket:[]")} if file.startswith("socket:") else set()

    for family in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet"):
        table = Path(f"/proc/net/{family}")
        rows = table.read_text().splitlines()[1:] if table.exists() else []
        assert not [row for row in rows if sockets & set(row.split())], family
    for row in Path("/proc/net/unix").read_text().splitlines()[1:]:
        _, _, _, flags, _, _, inode, *name = row.split()
        accepts = int(flags, 16) & 0x10000  # SO_ACCEPTCON
        assert not accepts or inode not in sockets, name


# -- the process ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["environ", "maps", "mem", "fd", "fdinfo", "cwd", "root", "exe", "stack", "io"]
)
def test_its_proc_is_closed(scene: Scene, name: str) -> None:
    """The daemon's environment, memory, open files and counters are its own."""
    path = f"/proc/{main_pid()}/{name}"
    command = {"fd": ["ls", path], "fdinfo": ["ls", path]}.get(name, ["cat", path])
    if name in ("cwd", "root", "exe"):
        command = ["readlink", path]

    done = scene.people.alice.run(*command)

    assert done.returncode != 0
    assert done.stdout == ""


def test_it_cannot_be_traced_or_signalled(scene: Scene) -> None:
    """ptrace and kill are refused, to ordinary users and to members of the group."""
    pid = main_pid()
    for person in (scene.people.alice, scene.people.carol):
        traced = person.run("/usr/bin/python3", "-c", _PTRACE, str(pid))
        killed = person.run("sh", "-c", f"kill -TERM {pid}")
        assert traced.stdout == "Operation not permitted\n"
        assert killed.returncode != 0
    assert main_pid() == pid


def test_no_core_is_dumped(scene: Scene) -> None:
    """A crash writes no memory to a file: it holds everybody's figures."""
    limits = Path(f"/proc/{main_pid()}/limits").read_text().splitlines()
    (cores,) = (line for line in limits if line.startswith("Max core file size"))

    assert cores.split()[4:6] == ["0", "0"]


def test_the_unit_tells_nothing(scene: Scene) -> None:
    """What systemd tells everybody about the unit has no figures, names or addresses of others."""
    shown = scene.people.alice.run("systemctl", "show", "netmond.service").stdout
    shown += scene.people.alice.run("systemctl", "status", "--no-pager", "netmond.service").stdout

    assert "MainPID" in shown
    assert [secret for secret in SECRETS if secret in shown] == []


def test_the_journal_is_closed(scene: Scene) -> None:
    """The service's log is for root and the journal's groups; alice's journalctl has nothing of it."""
    assert journal("--unit=netmond.service", "--lines=1")
    done = scene.people.alice.run(
        "journalctl", "--unit=netmond.service", "--no-pager", "--output=cat", "--quiet"
    )

    assert done.stdout == ""


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "reload", "kill"])
def test_the_unit_is_roots(scene: Scene, verb: str) -> None:
    """systemctl refuses an ordinary user everything, and never asks without a terminal."""
    pid = main_pid()

    done = scene.people.alice.run("systemctl", "--no-ask-password", verb, "netmond.service")

    assert done.returncode != 0
    assert main_pid() == pid


# -- what others see --------------------------------------------------------------------------------------

_ESCAPES = """
import socket, time
name = b"\\x1b[2J\\x9b\\r\\n"
open("/proc/self/comm", "wb").write(name)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
    while True:
        peer.sendto(bytes(10), ("127.55.1.2", 4444))
        time.sleep(0.05)
"""


def test_names_cannot_steer_a_terminal(scene: Scene) -> None:
    """A process that calls itself an escape sequence is shown to root as text, wherever it is shown."""
    process = subprocess.Popen(["/usr/bin/python3", "-c", _ESCAPES], **scene.people.alice.identity)
    try:
        eventually(
            lambda: "127.55.1.2" in scene.people.root.netmonctl("flows", "-n", "0").stdout, "its flow"
        )
        for words in (["processes"], ["flows"], ["user", "alice"], ["units"], ["processes", "--json"]):
            done = subprocess.run(["netmonctl", *words], capture_output=True, timeout=DEADLINE)
            assert b"\x1b" not in done.stdout, words
            assert b"\x9b" not in done.stdout, words
            assert b"\r" not in done.stdout, words
        for entry in journal("--unit=netmond.service", "--boot"):
            assert not any(ord(char) < 32 and char not in "\n\t" for char in str(entry.get("MESSAGE", "")))
    finally:
        process.kill()
        process.wait()
