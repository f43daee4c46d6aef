"""Completion in the real shells, against the real service: what is offered, and what is typed for one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from netmond.model import PacketLog, Rdma
from tests.bus import snapshots
from tests.bus.conftest import Host
from tests.bus.private import DEADLINE, unavailable
from tests.bus.rdma import rdma
from tests.bus.terminal import PROMPT, Terminal

ROOT = Path(__file__).parents[2]
COMPLETIONS = ROOT / "packaging" / "completions"
SHELLS = ("bash", "zsh", "fish")

VERBS = ["status", "users", "units", "processes", "flows", "interfaces", "user", "target", "log", "top"]
VERBS += ["interface", "reload", "log-level", "doctor", "selftest", "capture", "path", "sessions", "rdma"]

#: Names that a shell must quote, or that bash would break at.
UNITS = ("app.service", r"dev-sd\x2da.mount", "dbus-:1.3-org.example@0.service")
TARGETS = ("192.0.2.7", "2001:db8::/32", "2001:db8:7::1")


@pytest.fixture
def environment(host: Host, tmp_path: Path) -> dict[str, str]:
    """What a shell needs to find netmonctl and the bus, and nothing of the person who runs the tests."""
    host.monitor.snapshot = replace(
        snapshots.small(),
        units=snapshots.table(
            [7, 5, 3],
            unit=snapshots.texts(*UNITS),
            slice=snapshots.texts("", "", ""),
            cgroup=snapshots.texts(*(f"/{unit}" for unit in UNITS)),
            flows=snapshots.numbers("u4", 1, 1, 1),
        ),
        targets=snapshots.table(
            [7, 5, 3], address=snapshots.texts(*TARGETS), since=snapshots.numbers("f8", 1.5, 1.5, 1.5)
        ),
        rdma=Rdma(ports=rdma().ports),
    )
    host.monitor.logs = {13: PacketLog(uid=13, every=1, since=1.5)}
    program = tmp_path / "bin" / "netmonctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m netmonctl "$@"\n')
    program.chmod(0o755)
    return {
        "PATH": f"{program.parent}:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "TERM": "vt100",
        "PS1": PROMPT,
        "DBUS_SYSTEM_BUS_ADDRESS": host.bus.address,
    }


def need(shell: str) -> None:
    if shutil.which(shell) is None:
        unavailable(f"needs {shell} (Debian package {shell})")
    pytest.importorskip("argcomplete", reason="needs argcomplete (Debian package python3-argcomplete)")


def output(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=True
    ).stdout


BASH = r"""
source "$1"
COMP_LINE=$2 COMP_POINT=${#2} COMP_TYPE=9 COMP_WORDBREAKS=$' \t\n"\'><=;|&(:'
compopt() { :; }
eval "$(complete -p netmonctl | sed 's/.*-F \([^ ]*\).*/\1/') netmonctl"
(( ! ${#COMPREPLY[@]} )) || printf '%s\n' "${COMPREPLY[@]}"
"""


def bash_offers(environment: dict[str, str], line: str) -> list[str]:
    """As bash asks the function that is registered."""
    script = str(COMPLETIONS / "netmonctl.bash")
    return output(environment, "bash", "--norc", "-c", BASH, "bash", script, line).splitlines()


def fish_offers(environment: dict[str, str], line: str) -> list[str]:
    """fish says by itself."""
    script = f"source {COMPLETIONS}/netmonctl.fish; complete --do-complete $argv[1]"
    found = output(environment, "fish", "--no-config", "-c", script, line).splitlines()
    return [each.partition("\t")[0] for each in found]


def zsh_offers(environment: dict[str, str], line: str) -> list[str]:
    """zsh completes only where somebody types; what the completion system is given is written down."""
    hits = Path(environment["HOME"]) / "hits"
    with zsh(environment) as terminal:
        terminal.run(
            "compadd () { [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]] || { local -a hits; "
            f'builtin compadd -A hits "$@"; print -rl -- $hits >> {hits}; }}; builtin compadd "$@" }}'
        )
        terminal.type(f"{line}\t\x15")
        terminal.run("true")
    return [each for each in hits.read_text().splitlines() if each] if hits.exists() else []


OFFERS: dict[str, Callable[[dict[str, str], str], list[str]]] = {
    "bash": bash_offers,
    "zsh": zsh_offers,
    "fish": fish_offers,
}


def zsh(environment: dict[str, str]) -> Terminal:
    terminal = Terminal("zsh", "-f", "-i", environment=environment)
    terminal.run(f"fpath=({COMPLETIONS} $fpath); autoload -Uz compinit; compinit -u -D")
    return terminal


def bash(environment: dict[str, str]) -> Terminal:
    terminal = Terminal("bash", "--norc", "--noprofile", "-i", environment=environment)
    terminal.run(f"source {COMPLETIONS}/netmonctl.bash")
    return terminal


def fish(environment: dict[str, str]) -> Terminal:
    terminal = Terminal("fish", "--no-config", "-i", environment=environment)
    terminal.run(f"source {COMPLETIONS}/netmonctl.fish; function fish_prompt; echo -n '{PROMPT}'; end")
    return terminal


TERMINALS = {"bash": bash, "zsh": zsh, "fish": fish}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    need(request.param)
    return str(request.param)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("netmonctl ", VERBS),
        ("netmonctl us", ["users", "user"]),
        ("netmonctl target ", ["add", "remove", "reset", "show", "list"]),
        ("netmonctl top --d", ["--delay"]),
        ("netmonctl -n 5 --json us", ["users", "user"]),
        ("netmonctl --json users --so", ["--sort"]),
        ("netmonctl user ", ["games", "news"]),
        ("netmonctl flows -r --user ga", ["games"]),
        ("netmonctl target show ", list(TARGETS)),
        ("netmonctl target remove 192.0.2.7 ", list(TARGETS[1:])),
        ("netmonctl target --json show 1", ["192.0.2.7"]),
        ("netmonctl target add ", []),
        ("netmonctl interface add ", ["lo", "veth7"]),
        ("netmonctl interface remove ", ["eth0"]),
        ("netmonctl flows -i ", ["eth0", "lo", "veth7"]),
        ("netmonctl flows --kind ", ["socket", "peer", "forwarded", "overflow", "roce"]),
        ("netmonctl flows --traffic-type r", ["roce_v1", "roce_v2"]),
        ("netmonctl flows --pid ", ["101", "103", "201"]),
        ("netmonctl flows --peer 192", ["192.0.2.7", "192.0.2.9"]),
        ("netmonctl flows --proto ", ["tcp", "udp"]),
        ("netmonctl users --sort in_b", ["in_byte_rate", "in_bytes"]),
        ("netmonctl target list --sort in_b", ["in_byte_rate", "in_bytes"]),
        ("netmonctl log-level e", ["emerg", "err"]),
        ("netmonctl users --json ", []),
        ("netmonctl log ", ["on", "off", "list", "tail"]),
        ("netmonctl log on games ", ["news"]),
        ("netmonctl log off ", ["proxy"]),
        ("netmonctl log tail -f -u ", ["games", "news"]),
        ("netmonctl log tail --process ", ["curl", "ssh\N{REPLACEMENT CHARACTER}", "wget"]),
        ("netmonctl log list --sort lost", ["lost_bytes", "lost_packets"]),
        ("netmonctl rdma -d ", ["mlx5_0", "mlx5_0/1", "mlx5_1", "mlx5_1/1", "rxe0", "rxe0/1"]),
        ("netmonctl rdma --nccl -d mlx5_1/", ["mlx5_1/1"]),
        ("netmonctl rdma --sort in_b", ["in_byte_rate", "in_bytes"]),
    ],
)
def test_offers(environment: dict[str, str], shell: str, line: str, expected: list[str]) -> None:
    """Commands, options and live values, the same in every shell, however options and words are mixed."""
    assert sorted(OFFERS[shell](environment, line)) == sorted(expected)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("netmonctl inter\ts --mon\t", ["netmonctl", "interfaces", "--monitored"]),
        ("netmonctl units --unit dev\t", ["netmonctl", "units", "--unit", r"dev-sd\x2da.mount"]),
        ("netmonctl units --unit dbus\t", ["netmonctl", "units", "--unit", UNITS[2]]),
        ("netmonctl target show 2001:db8:7\t", ["netmonctl", "target", "show", "2001:db8:7::1"]),
        ("netmonctl target show 2001:db8::\t", ["netmonctl", "target", "show", "2001:db8::/32"]),
        ("netmonctl users --json=s\t", ["netmonctl", "users", "--json=short"]),
        ("netmonctl flows --user=ga\t", ["netmonctl", "flows", "--user=games"]),
    ],
)
def test_types(environment: dict[str, str], shell: str, typed: str, words: list[str]) -> None:
    """The Tab key completes a word that has one completion, quoted as this shell needs it."""
    with TERMINALS[shell](environment) as terminal:
        assert terminal.words(typed) == words


def test_second_command_of_a_line(environment: dict[str, str], shell: str) -> None:
    """What stands before the command in the line does not matter."""
    with TERMINALS[shell](environment) as terminal:
        terminal.type("printf '<%s>\\n' first; printf '<%s>\\n' x && netmonctl user ne\t --help\r")
        terminal.read_until("usage: netmonctl user")


def test_nothing_without_netmond(environment: dict[str, str], shell: str) -> None:
    """Where no value can be had, none is offered and nothing is printed."""
    environment["DBUS_SYSTEM_BUS_ADDRESS"] = "unix:path=/nonexistent"

    assert OFFERS[shell](environment, "netmonctl user ") == []


def test_nothing_without_argcomplete(environment: dict[str, str], shell: str, tmp_path: Path) -> None:
    """argcomplete is only recommended; without it the Tab key does nothing."""
    (tmp_path / "argcomplete.py").write_text("raise ImportError")
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{ROOT}"

    assert OFFERS[shell](environment, "netmonctl us") == []
