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

#: Those that run in the exporter, a process with IP sockets and libraries that the daemon does without.
#: Their keys are in netmond.export.options: the daemon checks them, and never imports the modules.
EXPORTED: Mapping[str, str] = {
    "json": "netmond.export.json_lines:JsonOutput",
    "syslog": "netmond.export.syslog:SyslogOutput",
    "prometheus": "netmond.export.prometheus:PrometheusOutput",
    "push": "netmond.export.push:PushOutput",
    "ipfix": "netmond.export.ipfix:IpfixOutput",
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
    ours = {**BUILT_IN, **EXPORTED}
    if name in ours:
        module, _, attribute = ours[name].partition(":")
        try:
            return cast(Factory, getattr(import_module(module), attribute))
        except ImportError as error:  # a package that only this output needs is not installed
            raise ConfigError(f"output {name} cannot be loaded: {error}") from error
    from importlib.metadata import entry_points  # 2 MB that a machine without further outputs saves

    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        known = sorted({*ours, *found})
        hint = did_you_mean(name, known) or f", there are: {', '.join(known)}"
        raise ConfigError(f"unknown output [output.{plain(name)}]{hint}")
    try:
        return cast(Factory, found[name].load())
    except Exception as error:  # anything can happen in other people's modules
        raise ConfigError(f"output {name} ({found[name].value}) cannot be loaded: {error!r}") from error


def own(config: Config) -> dict[str, OutputConfig]:
    """The outputs in the daemon's own process: the built-in ones and those of others that have a section.

    They run unless their section says ``enabled = false``.
    """
    names = dict.fromkeys((*BUILT_IN, *config.outputs))
    return {name: config.output(name) for name in names if name not in EXPORTED}


def exported(config: Config) -> dict[str, OutputConfig]:
    """The outputs in the exporter that have a section; they, too, run unless it says ``enabled = false``."""
    return {name: output for name, output in config.outputs.items() if name in EXPORTED}


def check(config: Config) -> list[str]:
    """Check every output's configuration without starting any: ConfigError for bad values, else warnings.

    An output that does not exist or does not load is a warning: the others run.
    """
    warnings: list[str] = []
    for name, output in (own(config) | exported(config)).items():
        try:
            settings = _settings(name) if output.enabled else None
        except ConfigError as error:
            warnings.append(f"{error}; ignored")
            continue
        if settings is not None:
            warnings += read_options(settings, output)[1]
    return warnings


def _settings(name: str) -> Sequence[Setting] | None:
    """The keys of an output, None if it does not tell."""
    if name in EXPORTED:
        from netmond.export.options import OPTIONS  # for who has such an output only

        return OPTIONS[name]
    settings: Sequence[Setting] | None = getattr(find(name), "options", None)
    return settings
