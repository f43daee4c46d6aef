"""Configuration: defaults, TOML files, environment and flags become one frozen `Config`.

The keys are in `config_table`. Later sources win: defaults, `netmond.toml`, `netmond.d/*.toml` in the
order of their names, environment, flags. A list replaces a list. An unknown key is a warning, a bad value a
`ConfigError`: one line with source, key, value and what is allowed. Outputs read their own keys with the
same `Setting` and `read_options`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from netmond import __version__, xtrace_environment
from netmond.config_table import ATTACH, INTERFACE, SECTIONS, SETTINGS
from netmond.model import Network
from netmond.settings import BOOLEAN, DIRECTORY, Given, Setting, did_you_mean, in_file, plain
from netmond.tomlfiles import drop_ins, read_toml

DEFAULT_FILE = Path("/etc/netmond/netmond.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    interval: float
    idle_interval: float
    log_level: str
    state_dir: Path
    log_dir: Path
    run_dir: Path
    keep_counting: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterConfig:
    enabled: bool
    cgroup: str  #: empty: the root of cgroup2; else a path, absolute or below that root
    slots: int
    peers: int
    idle: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfacesConfig:
    monitor: tuple[str, ...]  #: names, or ``auto``
    attach: str
    forwarded: int
    attach_by_name: Mapping[str, str] = field(default_factory=dict)

    def attach_for(self, name: str) -> str:
        """The attach mode of one interface: its own, or the general one."""
        return self.attach_by_name.get(name, self.attach)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetsConfig:
    addresses: tuple[Network, ...]
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessConfig:
    group: str  #: empty: root only


@dataclass(frozen=True, slots=True, kw_only=True)
class RdmaConfig:
    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsConfig:
    limit: int
    user_limit: int
    duration: float  #: 0: no limit
    buffer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputConfig:
    """What an output is started with: the keys of its section and the directories it may use.

    `origins` names the file each key came from, for messages.
    """

    name: str
    log_dir: Path
    state_dir: Path
    enabled: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    daemon: DaemonConfig
    meter: MeterConfig
    interfaces: InterfacesConfig
    targets: TargetsConfig
    access: AccessConfig
    rdma: RdmaConfig
    sessions: SessionsConfig
    outputs: Mapping[str, OutputConfig] = field(default_factory=dict)  #: those with a section

    def output(self, name: str) -> OutputConfig:
        """The configuration of an output, whether it has a section or not."""
        return self.outputs.get(name) or OutputConfig(
            name=name, log_dir=self.daemon.log_dir, state_dir=self.daemon.state_dir
        )


class _Files:
    """What the files say: the last value of every key, and warnings for what nobody knows."""

    def __init__(self) -> None:
        self.values: dict[str, Given] = {}
        self.attach: dict[str, str] = {}
        self.outputs: dict[str, dict[str, Given]] = {}
        self.warnings: list[str] = []

    def add(self, path: Path, *, required: bool) -> None:
        file = str(path)
        for section, table in read_toml(path, required=required).items():
            known = {each.key: each.kind for each in SETTINGS if each.section == section and each.in_file}
            if section not in (*SECTIONS, "interface", "output"):
                hint = did_you_mean(section, (*SECTIONS, "interface", "output"))
                self.warnings.append(f"{file}: unknown section [{plain(section)}] ignored{hint}")
            elif not isinstance(table, dict):
                raise in_file(file, section, table).error(f"must be a section, written [{section}]")
            elif section == "interface":
                self._interfaces(file, table)
            elif section == "output":
                self._outputs(file, table)
            else:
                for key, value in table.items():
                    if key in known:
                        given = self.values[f"{section}.{key}"] = in_file(file, f"{section}.{key}", value)
                        given.read(known[key])  # refused even where a later source would replace it
                    else:
                        self._unknown(file, section, key, value, known)

    def _unknown(self, file: str, section: str, key: str, value: Any, known: Iterable[str]) -> None:
        hint = did_you_mean(key, known)
        elsewhere = next((each for each in SETTINGS if each.name == f"{section}.{key}"), None)
        if elsewhere is not None:
            hint = f", set it with {elsewhere.flags[-1]} or {elsewhere.env}"
        if section == "interfaces" and isinstance(value, dict):
            hint = f", did you mean [interface.{plain(key)}]?"
        self.warnings.append(f"{file}: unknown key {section}.{plain(key)} ignored{hint}")

    def _interfaces(self, file: str, tables: Mapping[str, Any]) -> None:
        for name, table in tables.items():
            where = f"interface.{plain(name)}"
            if not isinstance(table, dict):
                raise in_file(file, where, table).error(f"must be a section, written [{where}]")
            in_file(file, "interface", name).read(INTERFACE)
            for key, value in table.items():
                if key == "attach":
                    self.attach[name] = in_file(file, f"{where}.attach", value).read(ATTACH)
                elif isinstance(value, dict):
                    hint = f', a name with a dot is written [interface."{plain(name)}.{plain(key)}"]'
                    self.warnings.append(f"{file}: unknown key {where}.{plain(key)} ignored{hint}")
                else:
                    hint = did_you_mean(key, ("attach",))
                    self.warnings.append(f"{file}: unknown key {where}.{plain(key)} ignored{hint}")

    def _outputs(self, file: str, tables: Mapping[str, Any]) -> None:
        for name, table in tables.items():
            where = f"output.{plain(name)}"
            if not isinstance(table, dict):
                raise in_file(file, where, table).error(f"must be a section, written [{where}]")
            keys = self.outputs.setdefault(name, {})
            keys.update((key, in_file(file, f"{where}.{plain(key)}", value)) for key, value in table.items())


def load(
    arguments: argparse.Namespace, environ: Mapping[str, str], main: Path = DEFAULT_FILE
) -> tuple[Config, list[str]]:
    """Read every source; return the configuration and warnings for a person.

    `arguments` come from `argument_parser()`; its ``-c FILE`` replaces `main` and must exist. Drop-ins
    are in the directory beside the file that is named like it, ``netmond.d`` for ``netmond.toml``.
    """
    given = getattr(arguments, "config", None)
    path = Path(given) if given else main
    files = _Files()
    files.add(path, required=bool(given))
    for drop_in in drop_ins(path.with_suffix(".d")) if path.suffix == ".toml" else []:
        files.add(drop_in, required=False)
    files.warnings += xtrace_environment.apply(environ, files.outputs)

    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    origins: dict[str, Given] = {}
    for setting in SETTINGS:
        value = (
            _from_flag(setting, arguments)
            or _from_environment(setting, environ)
            or files.values.get(setting.name)
        )
        origins[setting.name] = value or Given(setting.default, "default", setting.name)
        sections[setting.section][setting.key] = (
            value.read(setting.kind) if value else setting.kind.parse(_as_toml(setting.default))
        )
    daemon = DaemonConfig(**sections["daemon"])
    targets = TargetsConfig(**sections["targets"])
    if len(targets.addresses) > targets.limit:
        raise origins["targets.addresses"].error(
            f"{len(targets.addresses)} targets, but targets.limit allows {targets.limit}"
        )
    return Config(
        daemon=daemon,
        meter=MeterConfig(**sections["meter"]),
        interfaces=InterfacesConfig(**sections["interfaces"], attach_by_name=files.attach),
        targets=targets,
        access=AccessConfig(**sections["access"]),
        rdma=RdmaConfig(**sections["rdma"]),
        sessions=SessionsConfig(**sections["sessions"]),
        outputs={name: _output(name, keys, daemon) for name, keys in files.outputs.items()},
    ), files.warnings


def _as_toml(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


def _output(name: str, keys: Mapping[str, Given], daemon: DaemonConfig) -> OutputConfig:
    enabled = keys.get("enabled")
    own = {key: given for key, given in keys.items() if key != "enabled"}
    return OutputConfig(
        name=name,
        log_dir=daemon.log_dir,
        state_dir=daemon.state_dir,
        enabled=enabled.read(BOOLEAN) if enabled else True,
        options={key: given.value for key, given in own.items()},
        origins={key: given.source for key, given in own.items()},
    )


def read_options(settings: Sequence[Setting], config: OutputConfig) -> tuple[dict[str, Any], list[str]]:
    """Read an output's own keys: a value for every setting, and warnings for unknown keys."""
    given = {
        key: in_file(
            config.origins.get(key, "configuration"), f"output.{plain(config.name)}.{plain(key)}", value
        )
        for key, value in config.options.items()
    }
    known = {setting.key: setting for setting in settings}
    warnings = [
        f"{value.source}: unknown key {value.shown.partition(' = ')[0]} ignored{did_you_mean(key, known)}"
        for key, value in given.items()
        if key not in known
    ]
    values = {
        key: given[key].read(setting.kind) if key in given else setting.kind.parse(_as_toml(setting.default))
        for key, setting in known.items()
    }
    return values, warnings


def _from_flag(setting: Setting, arguments: argparse.Namespace) -> Given | None:
    written = getattr(arguments, setting.name, None)
    if written is None:
        return None
    texts = cast("list[str]", written) if setting.kind.repeats else [cast(str, written)]
    shown = " ".join(f"{setting.flags[-1]} {plain(each)}" for each in texts[:8])
    value = (
        [part for each in texts for part in setting.kind.from_text(each)] if setting.kind.repeats else None
    )
    return Given(value if setting.kind.repeats else setting.kind.from_text(texts[0]), "", shown)


def _from_environment(setting: Setting, environ: Mapping[str, str]) -> Given | None:
    written = environ.get(setting.env, "") if setting.env else ""
    if not written:
        return None
    if setting.kind is DIRECTORY:
        written = written.partition(":")[0]  # systemd joins several directories with colons
    return Given(setting.kind.from_text(written), "", f"{setting.env}={plain(written)}")


def argument_parser() -> argparse.ArgumentParser:
    """The daemon's command line. Values stay text: `load` reads them like those of the other sources."""
    parser = argparse.ArgumentParser(
        prog="netmond", description="Count who uses the network on this machine, how much, with whom.",
        allow_abbrev=False,
        epilog="Later sources win: defaults, configuration file, drop-ins, environment, flags. "
        "See netmond(8) and netmond.toml(5) for more.",
    )  # fmt: skip
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help=f"configuration file (default {DEFAULT_FILE}); NAME.d/*.toml beside it",
    )
    for setting in SETTINGS:
        if setting.flags:
            hints = (
                [f"default {', '.join(map(str, default))}"] if (default := _as_list(setting.default)) else []
            )
            hints += [f"environment {setting.env}"] if setting.env else []
            hints += ["repeat for more"] if setting.kind.repeats else []
            parser.add_argument(
                *setting.flags, dest=setting.name, metavar=setting.metavar,
                action="append" if setting.kind.repeats else "store",
                help=setting.help + (f" ({'; '.join(hints)})" if hints else ""),
            )  # fmt: skip
    parser.add_argument(
        "--detach", nargs="?", choices=("now", "if-stopped"), const="now",
        help="end the counting that goes on without the daemon, and exit; if-stopped: unless the unit named"
        " by NETMOND_UNIT is being restarted or is to keep counting",
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument(
        "--version", action="version", version=f"netmond {__version__}", help="show the version and exit"
    )
    return parser


def _as_list(default: Any) -> list[Any]:
    return list(default) if isinstance(default, tuple) else [default] if default != "" else []


def defaults() -> Config:
    """The configuration of a machine without any configuration."""
    return load(argparse.Namespace(), {}, Path(os.devnull))[0]


def needs_restart(old: Config, new: Config) -> list[str]:
    """Keys whose change a reload cannot apply, as ``section.key``."""
    return [
        setting.name
        for setting in SETTINGS
        if setting.restart
        and getattr(getattr(old, setting.section), setting.key)
        != getattr(getattr(new, setting.section), setting.key)
    ]
