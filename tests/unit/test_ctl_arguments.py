"""netmonctl's command line: options anywhere, one clear line for every mistake."""

from __future__ import annotations

import shlex

import pytest

from netmonctl.__main__ import DEFAULT_VERB, parsers
from netmonctl.arguments import CommandLine, arrange, before_cursor
from netmonctl.errors import CtlError, ExitCode

VERBS = parsers()[1].verbs


def arranged(line: str) -> CommandLine:
    return arrange(shlex.split(line), VERBS, DEFAULT_VERB)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "status"),
        ("--json", "status --json"),
        ("--json users", "users --json"),
        ("-n 5 --user alice flows --active", "flows -n 5 --user alice --active"),
        ("--watch users", "users --watch"),
        ("--watch 2 users", "users --watch=2"),
        ("users --watch 0.5 -r", "users --watch=0.5 -r"),
        ("-rn5 users", "users -r -n5"),
        ("-rn 5 users", "users -r -n 5"),
        ("target --json list", "target list --json"),
        ("--json target add 192.0.2.1 -", "target add --json -- 192.0.2.1 -"),
        ("target remove -- -strange", "target remove -- -strange"),
        ("-- users", "users"),
        ("--help", "--help"),
        ("--help users", "users --help"),
        ("target --help", "target --help"),
        ("user -l 1000", "user -l -- 1000"),
        ("log", "log list"),
        ("--json log", "log list --json"),
        ("log --help", "log --help"),
        ("log on alice bob", "log on -- alice bob"),
        ("log tail -f -u alice", "log tail -f -u alice"),
        ("-f log tail", "log tail -f"),
        ("-fn 5 log tail", "log tail -f -n 5"),
        ("target add -f log", "target add -f log"),
        ("-f log target add", "target add -f log"),
        ("-f tail target add", "target add -f tail"),
    ],
)
def test_options_before_or_after_the_verb(line: str, words: str) -> None:
    """However it was typed, argparse sees verb, options, other words."""
    assert arranged(line).words() == shlex.split(words)


@pytest.mark.parametrize(
    ("line", "without"),
    [
        ("-H root@far users -r", "users -r"),
        ("users --host=far --json", "users --json"),
        ("users --host far", "users"),
        ("-rHfar users", "users -r"),
    ],
)
def test_host_is_taken_out(line: str, without: str) -> None:
    """The far netmonctl gets the same command without the way to it."""
    assert arranged(line).words("-H", "--host") == shlex.split(without)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", ""),
        ("-n 5 --json", ""),
        ("--json users -r", "users"),
        ("users -n 5 --user", "users --user"),
        ("-n", "-n"),
        ("users -rn", "users -n"),
        ("target --json show 192.0.2.1", "target show 192.0.2.1"),
        ("target show -- -strange", "target show -strange"),
        ("users --watch", "users"),
        ("log tail -f -u", "log tail -u"),
    ],
)
def test_before_the_cursor(line: str, words: str) -> None:
    """For completion: commands, arguments, and the option whose value comes next; nothing else matters."""
    assert before_cursor(line.split()) == words.split()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("flwos", "unknown command 'flwos', did you mean 'flows'?; see: netmonctl --help"),
        ("xyzzy", "unknown command 'xyzzy'; see: netmonctl --help"),
        ("target", "target what? One of: add, remove, reset, show, list"),
        ("target ad", "unknown command 'target ad', did you mean 'add'?; see: netmonctl target --help"),
    ],
)
def test_unknown_commands(line: str, message: str) -> None:
    """A wrong verb is answered with the nearest right one."""
    with pytest.raises(CtlError) as caught:
        arranged(line)

    assert str(caught.value) == message
    assert caught.value.code == ExitCode.USAGE


@pytest.mark.parametrize(
    "line",
    [
        "users --watch=0",
        "users --watch=nan",
        "users --watch=x",
        "users -n -1",
        "users -n x",
        "users --json=yaml",
        "flows --port 65536",
        "flows --pid 4294967296",
        "flows --kind friendly",
        "flows --port ٣",
        "interface add eth0 --attach magic",
        "interface add",
        "user",
        "top --delay 0",
    ],
)
def test_bad_values(line: str) -> None:
    """A value that cannot be meant is a usage error of one line."""
    with pytest.raises(CtlError) as caught:
        parsers()[0].parse_args(arranged(line).words())

    assert caught.value.code == ExitCode.USAGE
    assert "\n" not in str(caught.value)


def test_options_have_defaults_on_every_command() -> None:
    """Commands may ask for any option, also for those that they do not take."""
    args = parsers()[0].parse_args(["reload"])
    assert (args.json, args.watch, args.lines, args.full, args.user) == ("off", None, None, False, None)


def test_bare_json_is_pretty_and_bare_watch_five_seconds() -> None:
    """The forms without a value."""
    args = parsers()[0].parse_args(arranged("--watch --json users").words())
    assert (args.json, args.watch) == ("pretty", 5.0)


def test_sort_key_may_have_dashes() -> None:
    """in-bytes is easier to type than in_bytes and means the same."""
    assert parsers()[0].parse_args(["users", "--sort", "in-bytes"]).sort == "in_bytes"
