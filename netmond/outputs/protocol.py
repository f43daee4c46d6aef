"""What an output is, and how outputs are found.

A third party adds one with a class and an entry point; no change in netmond is needed::

    # my_output.py
    class MyOutput:
        name = "mine"

        def init(self, config):  # netmond.config.OutputConfig; its options: keys of [output.mine]
            self.file = open(config.options["path"], "a")

        def write(self, snapshot):  # netmond.model.Snapshot
            print(snapshot.time, *snapshot.users.counters.sum(axis=0), file=self.file, flush=True)

        def close(self):
            self.file.close()

    # pyproject.toml
    [project.entry-points."netmond.outputs"]
    mine = "my_output:MyOutput"

The three members are called in a thread of their own, one after the other, never at the same time.
They may block or raise: that costs this output's rows, counted, and nobody else anything. After an
error `close` and, a little later, `init` are called again; so they are when its configuration changes.
A `write` that raises has delivered nothing: the flows that ended in it come again with the next one.
An object lives as long as the daemon. Figures in a snapshot are running totals: an output that needs
differences remembers the last figures by flow id and forgets an id once its row has ``ended`` set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Protocol, cast, runtime_checkable

from netmond.config import Config, OutputConfig, read_options
from netmond.errors import ConfigError
from netmond.model import Loss, Snapshot
from netmond.settings import Setting, did_you_mean, plain

GROUP = "netmond.outputs"

#: Always there and on unless configured otherwise, also where no package metadata is installed.
BUILT_IN: Mapping[str, str] = {
    "csv": "netmond.outputs.csv:CsvOutput",
    "journal": "netmond.outputs.journal:JournalOutput",
}


class Output(Protocol):
    """What every output has.

    Optional beside it: `Lossy`, `Limited`, `Periodic`, and a class attribute ``options: Sequence[Setting]``,
    with which its keys are checked before it starts (`check`): bad values refused, unknown keys warned of.
    """

    name: str

    def init(self, config: OutputConfig) -> None:
        """Open what is needed; raise to be tried again later."""

    def write(self, snapshot: Snapshot) -> None:
        """Deliver one snapshot."""

    def close(self) -> None:
        """Flush and let go of everything; also after a failed `init`."""


@runtime_checkable
class Lossy(Protocol):
    """An output that can fail to deliver rows says how often, in its own lines of the loss ledger."""

    def losses(self) -> Sequence[Loss]:
        """Counts since the object was made, named ``output.<name>.<what>``."""


@runtime_checkable
class Periodic(Protocol):
    """An output that does not need every snapshot says how often it does; all others get them more often."""

    def period(self) -> float:
        """Seconds between two snapshots as configured; asked after `init` and each `write`."""


@runtime_checkable
class Limited(Protocol):
    """An output that can do a part of its work says what is missing; its feature is degraded then."""

    def limitation(self) -> str:
        """What does not work, and its remedy; empty if everything does."""


Factory = Callable[[], Output]


def find(name: str) -> Factory:
    """The class of an output, built in or installed; ConfigError if there is none or it cannot be loaded."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        try:
            return cast(Factory, getattr(import_module(module), attribute))
        except ImportError as error:  # a package that only this output needs is not installed
            raise ConfigError(f"output {name} cannot be loaded: {error}") from error
    from importlib.metadata import entry_points  # 2 MB that a machine without further outputs saves

    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        known = sorted({*BUILT_IN, *found})
        hint = did_you_mean(name, known) or f", there are: {', '.join(known)}"
        raise ConfigError(f"unknown output [output.{plain(name)}]{hint}")
    try:
        return cast(Factory, found[name].load())
    except Exception as error:  # anything can happen in other people's modules
        raise ConfigError(f"output {name} ({found[name].value}) cannot be loaded: {error!r}") from error


def enabled(config: Config) -> list[str]:
    """Names of the outputs that shall run: the built-in ones and those with a section, unless disabled."""
    return [name for name in dict.fromkeys((*BUILT_IN, *config.outputs)) if config.output(name).enabled]


def check(config: Config) -> list[str]:
    """Check every output's configuration without starting any: ConfigError for bad values, else warnings.

    An output that does not exist or does not load is a warning: the others run.
    """
    warnings: list[str] = []
    for name in enabled(config):
        try:
            output = find(name)
        except ConfigError as error:
            warnings.append(f"{error}; ignored")
            continue
        settings: Sequence[Setting] | None = getattr(output, "options", None)
        if settings is not None:
            warnings += read_options(settings, config.output(name))[1]
    return warnings
