"""A command line that accepts options anywhere: its parsers, and the order argparse needs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from netmonctl.errors import ExitCode, usage
from netmonctl.options import COMMON, OPTIONS, SWITCHES

#: The command of a group that is meant if none is given.
DEFAULTS = {"log": "list", "sessions": "list"}


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
