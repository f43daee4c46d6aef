"""The options of netmonctl in one table, and a command line that accepts them anywhere."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from netmonctl import completers
from netmonctl.errors import ExitCode, usage

LOG_LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")


def seconds(text: str) -> float:
    """A span of at least a tenth of a second."""
    value = float(text)
    if not math.isfinite(value) or not 0.1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0.1 and 86400 seconds")
    return value


def whole(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not low <= int(text[:20]) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return number


def _network(text: str) -> str:
    """An address or a prefix, as it is."""
    from ipaddress import ip_network

    try:
        ip_network(text, strict=False)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an address nor a prefix") from None
    return text


def _column(text: str) -> str:
    return text.replace("-", "_")


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its flags and what argparse is to do with it.

    `attached`: its value is optional and must be written ``--option=value``.
    """

    flags: tuple[str, ...]
    how: Mapping[str, Any]
    completer: Callable[..., list[str]] | None = None
    attached: bool = False

    @property
    def takes_value(self) -> bool:
        return "action" not in self.how and not self.attached


def _switch(*flags: str, dest: str = "", help: str) -> Option:
    return Option(flags, {"action": "store_true", "help": help} | ({"dest": dest} if dest else {}))


OPTIONS: dict[str, Option] = {
    "json": Option(
        ("--json",),
        {
            "nargs": "?",
            "const": "pretty",
            "choices": ("short", "pretty", "off"),
            "default": "off",
            "help": "print JSON, on one line or indented (default: pretty)",
        },
        attached=True,
    ),
    "no_legend": _switch("--no-legend", help="print neither header nor closing line"),
    "no_pager": _switch("--no-pager", help="do not start a pager"),
    "no_ask_password": _switch(
        "--no-ask-password", help="do not ask for a password for what is not allowed"
    ),
    "host": Option(
        ("-H", "--host"), {"metavar": "[USER@]HOST", "help": "ask the netmond of another machine, over ssh"}
    ),
    "full": _switch("-l", "--full", help="neither shorten names nor leave out columns"),
    "si": _switch("--si", help="sizes in powers of 1000 (kB) instead of 1024 (KiB)"),
    "verbose": _switch(
        "-v", "--verbose", help="more detail: counters that are zero, hooks that were refused"
    ),
    "lines": Option(
        ("-n", "--lines"),
        {"metavar": "N", "type": whole(0, 0xFFFFFFFF), "help": "at most N rows, 0 for all"},
    ),
    "sort": Option(
        ("--sort",),
        {"metavar": "KEY", "type": _column, "help": "sort by this key of the JSON form, such as in_bytes"},
        completers.sort_keys,
    ),
    "reverse": _switch("-r", "--reverse", help="reverse the order"),
    "all": _switch(
        "-a", "--all", help="everyone's; where that is not allowed, asks for a password or fails"
    ),
    "own": _switch("--own", help="own figures only"),
    "watch": Option(
        ("--watch",),
        {
            "nargs": "?",
            "const": 5.0,
            "type": seconds,
            "metavar": "SECONDS",
            "help": "show again every so many seconds (default: 5) until interrupted",
        },
        attached=True,
    ),
    "user": Option(("-u", "--user"), {"metavar": "NAME|UID", "help": "only this user"}, completers.users),
    "every": Option(
        ("--every",),
        {"metavar": "N", "type": whole(1, 0xFFFFFFFF), "help": "only one of N packets (default: 1, all)"},
    ),
    "direction": Option(
        ("--dir", "--direction"),
        {"metavar": "in|out", "dest": "direction", "choices": ("in", "out"), "help": "only this direction"},
    ),
    "unit": Option(("--unit",), {"metavar": "UNIT", "help": "only this systemd unit"}, completers.units),
    "pid": Option(
        ("--pid",),
        {"metavar": "PID", "type": whole(0, 0xFFFFFFFF), "help": "only this process"},
        completers.processes,
    ),
    "process": Option(
        ("--process",), {"metavar": "NAME", "help": "only processes of this name"}, completers.names
    ),
    "protocol": Option(
        ("--proto", "--protocol"),
        {"metavar": "PROTO", "dest": "protocol", "help": "only this protocol: tcp, udp, icmp… or a number"},
        completers.protocols,
    ),
    "port": Option(
        ("-p", "--port"),
        {"metavar": "PORT", "type": whole(0, 65535), "help": "only this port, on either side"},
    ),
    "peer": Option(
        ("--peer",),
        {"metavar": "ADDR[/PREFIX]", "help": "only this remote address or prefix"},
        completers.peers,
    ),
    "interface": Option(
        ("-i", "--interface"), {"metavar": "NAME", "help": "only this interface"}, completers.interfaces
    ),
    "kind": Option(
        ("--kind",),
        {
            "metavar": "KIND",
            "choices": ("socket", "peer", "forwarded", "overflow"),
            "help": "only this kind of flow: socket, peer, forwarded or overflow",
        },
    ),
    "active": _switch("--active", help="only flows with traffic just now"),
    "monitored": _switch("--monitored", help="only interfaces that netmond watches"),
    "books": _switch("--books", help="closed books: whose it was what the kernel counted there"),
    "attach": Option(
        ("--attach",),
        {
            "metavar": "MODE",
            "choices": ("auto", "tc", "xdp", "xdp-generic"),
            "help": "how to watch: auto, tc, xdp or xdp-generic",
        },
    ),
    "file": Option(
        ("-f", "--file"),
        {"metavar": "FILE", "help": "read addresses from FILE, - is standard input"},
        completers.files,
    ),
    "follow": _switch("-f", "--follow", help="show what comes, too, until interrupted (default)"),
    "no_follow": _switch("--no-follow", help="only what is there"),
    "resolve": _switch("--resolve", help="names of hosts; an address stays one until its name is known"),
    "write": Option(
        ("-w", "--write"),
        {"metavar": "FILE", "help": "write the packets to FILE, as pcapng; - is standard output"},
        completers.files,
    ),
    "count": Option(
        ("-c", "--count"),
        {"metavar": "N", "type": whole(1, 0xFFFFFFFFFFFFFFFF), "help": "end after N packets or events"},
    ),
    "snaplen": Option(
        ("-s", "--snapshot-length"),
        {
            "metavar": "BYTES",
            "type": whole(0, 262144),
            "help": "at most so many bytes of each packet (default: 262144)",
        },
    ),
    "buffer": Option(
        ("-B", "--buffer-size"),
        {
            "metavar": "KIB",
            "type": whole(1, 1 << 22),
            "help": "room for packets that wait to be read, in KiB (default: 32768)",
        },
    ),
    "file_size": Option(
        ("-C", "--file-size"),
        {
            "metavar": "MILLIONS",
            "type": whole(1, 10**9),
            "help": "a new file after so many millions of bytes",
        },
    ),
    "file_duration": Option(
        ("-G", "--file-duration"),
        {"metavar": "SECONDS", "type": seconds, "help": "a new file after so many seconds"},
    ),
    "file_count": Option(
        ("-W", "--file-count"),
        {
            "metavar": "N",
            "type": whole(1, 10**6),
            "help": "with -C or -G: N files, of which the oldest is overwritten",
        },
    ),
    "duration": Option(
        ("--duration",), {"metavar": "SECONDS", "type": seconds, "help": "end after so many seconds"}
    ),
    "way": Option(
        ("-Q", "--dir", "--direction"),
        {
            "metavar": "in|out|inout",
            "dest": "way",
            "choices": ("in", "out", "inout"),
            "help": "only packets of this direction",
        },
    ),
    "hex": _switch("-x", "--hex", help="the bytes of each packet, too"),
    "ascii": _switch("-X", "--ascii", help="the same with the characters they are in ASCII"),
    "habits": Option(
        ("-n", "-l", "-U"),
        {"action": "store_true", "help": "taken from those who know tcpdump; it is so in any case"},
    ),
    "ip": Option(
        ("-i", "--ip"),
        {
            "metavar": "ADDR[/PREFIX]",
            "type": _network,
            "help": "only packets from or to this address",
        },
        completers.peers,
    ),
    "stages": Option(
        ("--stages",),
        {"metavar": "STAGE[,STAGE...]", "help": "only these stages"},
        completers.stages,
    ),
    "drops": _switch("--drops", help="only what was dropped, sent again or reset, and why"),
    "stats": _switch("-s", "--stats", help="how many packets passed each stage and how long it took them"),
    "interval": Option(
        ("--interval",),
        {
            "metavar": "SECONDS",
            "type": seconds,
            "help": "seconds between two reports (default: 1)",
        },
    ),
    "journeys": _switch(
        "--follow", "--journeys", help="all events of a packet together, when it is at rest"
    ),
    "debug_func": _switch("-d", "--debug-func", help="which hook each stage has here, and why; then ends"),
    "rate": Option(
        ("--rate",),
        {
            "metavar": "N",
            "type": whole(0, 0xFFFFFFFF),
            "help": "at most N events a second, 0 for no limit (default: 10000)",
        },
    ),
    "delay": Option(
        ("-d", "--delay"),
        {
            "metavar": "SECONDS",
            "type": seconds,
            "default": 2.0,
            "help": "seconds between two updates (default: 2)",
        },
    ),
}

#: The command of a group that is meant if none is given.
DEFAULTS = {"log": "list", "sessions": "list"}

#: Letters that are a switch with a command, and take a value with others.
SWITCHES = {
    "log tail": {"-f"},
    "capture": {"-n"},
    "path": {"-d", "-s"},
}

#: What every command takes.
COMMON = ("json", "no_legend", "no_pager", "no_ask_password", "host")


def add_options(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup, *names: str, several: Sequence[str] = ()
) -> None:
    """Give `parser`, or a group of it, the named options and the common ones; `several` may be repeated."""
    for name in (*names, *several, *COMMON):
        option = OPTIONS[name]
        how: dict[str, Any] = {"dest": name, **option.how}
        if name in several:
            how["action"] = "append"
        action = parser.add_argument(*option.flags, **how)
        with_completer(action, option.completer)


def with_completer(action: argparse.Action, completer: Callable[..., list[str]] | None) -> None:
    """Tell argcomplete where live values come from; without it the attribute is ignored."""
    if completer is not None:
        action.completer = completer  # type: ignore[attr-defined]


class Parser(argparse.ArgumentParser):
    """argparse that raises one line instead of printing its own."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs["allow_abbrev"] = False
        super().__init__(**kwargs)

    def error(self, message: str) -> NoReturn:
        raise usage(f"{message}; see: {self.prog} --help")


class Commands:
    """The verbs, and the sub-verbs of those that are groups."""

    def __init__(self, parser: argparse.ArgumentParser, prefix: str = "") -> None:
        self._parsers = parser.add_subparsers(
            title="commands", prog=parser.prog, metavar="COMMAND", required=True
        )
        self._prefix = prefix
        self.verbs: dict[str, dict[str, Any]] = {}

    def add(self, verb: str, run: Callable[..., ExitCode | None], help: str) -> argparse.ArgumentParser:
        """A verb that `run(args, client, output)` carries out; None is success."""
        parser = self._parsers.add_parser(verb, help=help, description=help)
        parser.set_defaults(run=run, verb=f"{self._prefix}{verb}")
        self.verbs[verb] = {}
        return parser

    def group(self, verb: str, help: str) -> Commands:
        """A verb that only collects sub-verbs."""
        parser = self._parsers.add_parser(verb, help=help, description=help)
        commands = Commands(parser, f"{verb} ")
        self.verbs[verb] = commands.verbs
        return commands


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """A command line in argparse's order: verb and sub-verb, options, other words.

    argparse binds an option to the parser of the verb before it; people write it anywhere.
    Each option is one flag, with its value if it has one.
    """

    verb: tuple[str, ...]
    options: tuple[tuple[str, ...], ...]
    arguments: tuple[str, ...]

    def words(self, *without: str) -> list[str]:
        """As argv, but without the options of the given flags."""
        options = [word for option in self.options if not _is_one_of(option[0], without) for word in option]
        return [*self.verb, *options, *(["--", *self.arguments] if self.arguments else [])]


def _is_one_of(word: str, flags: Sequence[str]) -> bool:
    name = word.partition("=")[0] if word.startswith("--") else word[:2]
    return name in flags


def arrange(argv: Sequence[str], verbs: Mapping[str, Mapping[str, Any]], default: str) -> CommandLine:
    """Take a command line apart. `default` is the verb when there is none."""
    options, words, literal = _split(argv)
    asks_for_all = {"-h", "--help", "--version"} & {option[0] for option in options}
    words = words or literal[:1] or ([] if asks_for_all else [default])
    if not words:
        return CommandLine(verb=(), options=tuple(options), arguments=())
    if not set(words[:1]) <= set(verbs):
        raise usage(f"unknown command {words[0]!r}{_nearest(words[0], verbs)}; see: netmonctl --help")
    depth, verb = 1, words[0]
    if subverbs := verbs[verb]:
        if len(words) > 1 and words[1] not in subverbs:
            name = f"{verb} {words[1]}"
            raise usage(
                f"unknown command {name!r}{_nearest(words[1], subverbs)}; see: netmonctl {verb} --help"
            )
        if len(words) == 1 and not asks_for_all:
            if verb not in DEFAULTS:
                raise usage(f"{verb} what? One of: {', '.join(subverbs)}")
            words.append(DEFAULTS[verb])
        depth = 2
    arguments = (*words[depth:], *(literal[1:] if words == literal[:1] else literal))
    return CommandLine(verb=tuple(words[:depth]), options=tuple(options), arguments=arguments)


def _valued() -> set[str]:
    """The flags whose value is a word of its own."""
    return {flag for option in OPTIONS.values() if option.takes_value for flag in option.flags}


def _split(argv: Sequence[str]) -> tuple[list[tuple[str, ...]], list[str], list[str]]:
    """Options with their values, other words, and the words after ``--``."""
    for verb, switches in SWITCHES.items():
        found = _split_by(_valued() - switches, argv)
        if found[1][: len(verb.split())] == verb.split():
            return found
    return _split_by(_valued(), argv)


def _split_by(valued: set[str], argv: Sequence[str]) -> tuple[list[tuple[str, ...]], list[str], list[str]]:
    options: list[tuple[str, ...]] = []
    words: list[str] = []
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        if token == "--":
            return options, words, rest
        if not token.startswith("-") or token == "-":
            words.append(token)
        elif not token.startswith("--") and len(token) > 2 and token[:2] not in valued:
            rest[:0] = [token[:2], f"-{token[2:]}"]
        elif token in valued and rest:
            options.append((token, rest.pop(0)))
        elif token == "--watch" and rest and rest[0].replace(".", "", 1).isdecimal():
            options.append((f"--watch={rest.pop(0)}",))
        else:
            options.append((token,))
    return options, words, []


def before_cursor(words: Sequence[str]) -> list[str]:
    """The words before one that is being completed, as argparse needs them: verbs and arguments, then an
    option that waits for its value. Other options do not matter."""
    options, plain, literal = _split(words)
    waiting = options[-1] if options and len(options[-1]) == 1 and options[-1][0] in _valued() else ()
    return [*plain, *literal, *waiting]


def _nearest(word: str, known: Mapping[str, Any]) -> str:
    import difflib

    close = difflib.get_close_matches(word, list(known), 1)
    return f", did you mean {close[0]!r}?" if close else ""
