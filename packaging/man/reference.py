"""The parts of the man pages that the code knows, as reStructuredText.

Each function takes notes - what the page adds to some entries - and perhaps arguments, and returns text.
A note on an entry that does not exist is an error; so is a missing one where the code has no words itself.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import interfaces
from markup import Entry, Notes, definitions, literal, plain, sentence

from netmonctl import top
from netmonctl.__main__ import parsers
from netmonctl.errors import ExitCode
from netmonctl.options import COMMON, OPTIONS
from netmonctl.rdma_verdict import MEANINGS
from netmond.config import argument_parser
from netmond.config_table import SETTINGS
from netmond.errors import NetmondError
from netmond.export import metrics, xtrace
from netmond.export.families import Family
from netmond.export.options import OPTIONS as EXPORTED
from netmond.kernel.wire import INTERFACE_LOSSES, SOCKET_LOSSES
from netmond.outputs import audit, csv, journal, log
from netmond.outputs.messages import MessageId
from netmond.settings import BOOLEAN, Setting

CATALOGUE = Path(__file__).resolve().parents[1] / "journal" / "netmond.catalog"
#: Names, and their meaning beside them or below, as in the docstring of netmond.outputs.journal.
FIELDS = r"^([A-Z][A-Z_]+(?:, [A-Z][A-Z_]+)*)(?: {2,}|\n +)(.*(?:\n {2,}.*)*)"

OUTPUTS: Mapping[str, Sequence[Setting]] = {"csv": csv.OPTIONS, "journal": journal.OPTIONS, **EXPORTED}


def daemon_options(notes: Notes) -> str:
    """The command line of netmond."""
    return definitions(
        (
            Entry(max(action.option_strings, key=len), _flags(action.option_strings, action.metavar),
                  sentence(action.help or ""))
            for action in _options(argument_parser())
        ),
        notes,
    )  # fmt: skip


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.option_strings]


def _flags(flags: Iterable[str], value: Any, separator: str = " ") -> str:
    """Flags as a term: ``-n``, ``--lines`` N."""
    term = ", ".join(f"**{flag}**" for flag in flags)
    return f"{term}{separator}*{value}*" if value else term


def client_options(notes: Notes, which: str) -> str:
    """The options of netmonctl: those of every command (``common``), or the others."""

    def entries() -> Iterable[Entry]:
        for name, option in OPTIONS.items():
            if (name in COMMON) == (which == "common"):
                value = option.how.get("metavar") or "|".join(option.how.get("choices", ()))
                term = _flags(option.flags, value, r"\ [=\ " if option.attached else " ")
                yield Entry(option.flags[-1], term + "]" * option.attached, sentence(option.how["help"]))

    return definitions(entries(), notes)


def commands(notes: Notes, *verbs: str) -> str:
    """Some commands of netmonctl: arguments, options of their own."""

    def entries() -> Iterable[Entry]:
        for verb, parser in _verbs():
            if verb.partition(" ")[0] not in verbs:
                continue
            words = [_positional(action) for action in parser._actions if not action.option_strings]
            flags = [
                action.option_strings[-1]
                for action in _options(parser)
                if action.dest in OPTIONS and action.dest not in COMMON
            ]
            taken = "\n\nOptions: " + ", ".join(f"**{flag}**" for flag in flags) + "." if flags else ""
            term = " ".join([f"**{verb}**", *words])
            yield Entry(verb, term, sentence(parser.description or "") + taken)

    if unknown := set(verbs) - {verb.partition(" ")[0] for verb, _ in _verbs()}:
        raise ValueError(f"no such command: {unknown}")
    return definitions(entries(), notes)


def _positional(action: argparse.Action) -> str:
    value = f"*{action.metavar}*"
    return {"?": f"[{value}]", "*": f"[{value}...]", "+": f"{value}..."}.get(str(action.nargs), value)


def _verbs() -> list[tuple[str, argparse.ArgumentParser]]:
    """Every command that does something, with its parser; sub-commands as ``target add``."""
    return list(_below(parsers()[0], ""))


def _below(parser: argparse.ArgumentParser, prefix: str) -> Iterable[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, below in action.choices.items():
                name = f"{prefix}{verb}"
                found = list(_below(below, f"{name} "))
                yield from found or [(name, below)]


def keys(notes: Notes, section: str) -> str:
    """The keys of a section of the configuration."""
    kind, _, name = section.partition(".")
    settings: Sequence[Setting] = (
        (
            Setting(key="enabled", kind=BOOLEAN, default=True, help="whether this output is used"),
            *OUTPUTS[name],
        )
        if kind == "output"
        else [setting for setting in SETTINGS if setting.section == section and setting.in_file]
    )
    if not settings:
        raise ValueError(f"no key in [{section}]")
    return definitions(
        (Entry(setting.key, f"**{setting.key}** =", _meaning(setting)) for setting in settings), notes
    )


def _meaning(setting: Setting) -> str:
    facts = [sentence(setting.help)]
    facts.append(f"{sentence(setting.kind.allowed)} Default: {literal(_toml(setting.default))}.")
    elsewhere = [f"option **{flag}**" for flag in setting.flags[-1:]]
    elsewhere += [f"environment variable **{setting.env}**"] if setting.env else []
    if elsewhere:
        facts.append(f"Overridden by {' and '.join(elsewhere)}.")
    if setting.restart:
        facts.append("A change takes effect when the service is restarted.")
    return " ".join(facts)


def _toml(value: Any) -> str:
    """A default as one would write it into the file; large sizes with a suffix."""
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    for shift, suffix in ((30, "G"), (20, "M")):
        if isinstance(value, int) and value and value % (1 << shift) == 0:
            return f'"{value >> shift}{suffix}"'
    return str(value)


def top_keys(notes: Notes) -> str:
    """The keys of ``netmonctl top``, from its own help."""
    lines = (re.split(r" {2,}", line, maxsplit=1) for line in top.HELP)
    return definitions((Entry(key, f"**{plain(key)}**", sentence(meaning)) for key, meaning in lines), notes)


def rdma_verdicts(notes: Notes) -> str:
    """How an RDMA port can fare, with the thresholds."""
    return definitions(
        (Entry(state, f"**{state}**", sentence(text)) for state, text in MEANINGS.items()), notes
    )


def exit_codes(notes: Notes) -> str:
    """The exit status of netmonctl; the page says what each means."""
    return definitions((Entry(code.name, f"**{code.value}**", None) for code in ExitCode), notes)


def errors(notes: Notes) -> str:
    """The D-Bus errors; the page says what each means."""
    codes = {error.code: error for error in _subclasses(NetmondError)}
    return definitions((Entry(code, f"**org.netmond1.Error.{code}**", None) for code in codes), notes)


def _subclasses(error: type[NetmondError]) -> Iterable[type[NetmondError]]:
    yield error
    for below in error.__subclasses__():
        yield from _subclasses(below)


def losses(notes: Notes) -> str:
    """The loss ledgers of the kernel's programs; notes add the others, which have no list in the code."""
    known = [
        Entry(name, f"**{name}**", sentence(meaning)) for name, meaning in SOCKET_LOSSES + INTERFACE_LOSSES
    ]
    return definitions([*known, *(Entry(name, f"**{plain(name)}**", None) for name in notes)], notes)


def all_metrics(notes: Notes) -> str:
    """The metrics: four at once for what is counted in both directions, the others one by one."""

    def entries() -> Iterable[Entry]:
        for subject in metrics.SUBJECTS:
            name = rf"**{subject.prefix}\_{{receive,transmit}}\_{{bytes,packets}}\_total**"
            yield Entry(
                subject.prefix, name, _labelled(f"received or transmitted {subject.of}", subject.labels)
            )
        yield from _families(metrics.SINGLE)

    return definitions(entries(), notes)


def xtrace_metrics(notes: Notes) -> str:
    """Those under the names of another tool."""
    return definitions(_families(xtrace.FAMILIES), notes)


def _families(families: Iterable[Family]) -> Iterable[Entry]:
    for family in families:
        labels = family.labels if family.labels != xtrace.LABELS else ()
        yield Entry(family.name, f"**{family.name}**", _labelled(family.help, labels))


def _labelled(text: str, labels: Sequence[str]) -> str:
    """What a metric is, and by what its series differ."""
    by = ", ".join(f"**{label}**" for label in labels)
    return sentence(text) + (f" Labels: {by}." if len(labels) > 1 else f" Label: {by}." if labels else "")


def messages(notes: Notes) -> str:
    """The journal messages: what the catalogue says."""
    blocks = r"^-- (\w+)\n(.*?)(?=^-- |\Z)"
    explained = dict(re.findall(blocks, CATALOGUE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))

    def entries() -> Iterable[Entry]:
        for message in MessageId:
            subject = re.search(r"^Subject: (.*)$", explained[message.value], re.MULTILINE)
            assert subject is not None
            fields = dict.fromkeys(re.findall(r"@(\w+)@", explained[message.value]))
            text = sentence(re.sub(r"@NETMOND_(\w+)@", r"\1", subject[1]))
            if fields:
                text += f" Fields: {', '.join(fields)}."
            yield Entry(message.name, f"**{message.value}**", text)

    return definitions(entries(), notes)


def fields(notes: Notes) -> str:
    """The fields of journal messages, from where the modules that write them document them."""
    found: dict[str, str] = {}
    for module in (journal, audit, log):
        for names, text in re.findall(FIELDS, inspect.getdoc(module) or "", re.MULTILINE):
            found.setdefault(names, " ".join(text.replace("`", "").split()))
    entries = (
        Entry(names, ", ".join(f"**{name}**" for name in names.split(", ")), sentence(text))
        for names, text in found.items()
    )
    return definitions(entries, notes)


REFERENCES: Mapping[str, Callable[..., str]] = {
    "daemon-options": daemon_options,
    "client-options": client_options,
    "commands": commands,
    "keys": keys,
    "rdma-verdicts": rdma_verdicts,
    "exit-codes": exit_codes,
    "top-keys": top_keys,
    "errors": errors,
    "losses": losses,
    "metrics": all_metrics,
    "xtrace-metrics": xtrace_metrics,
    "messages": messages,
    "fields": fields,
    "dbus-synopsis": interfaces.synopsis,
    "dbus-members": interfaces.members,
    "dbus-about": interfaces.about,
}
