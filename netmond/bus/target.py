"""org.netmond1.Target: the objects below /org/netmond1/target, which exist only while they are looked at."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from netmond import answers, query
from netmond.bus import names
from netmond.bus.authority import Action, Caller
from netmond.bus.marshal import plain_options
from netmond.bus.monitor import Monitor
from netmond.bus.typed import Interface, Options, method, property_
from netmond.columns import Row
from netmond.errors import InvalidArgs, NoSuchTarget
from netmond.model import IN_BYTES, IN_PACKETS, OUT_BYTES, OUT_PACKETS, Network

_COUNTERS = {"InPackets": IN_PACKETS, "InBytes": IN_BYTES, "OutPackets": OUT_PACKETS, "OutBytes": OUT_BYTES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target(Interface):
    name = names.TARGET

    monitor: Monitor
    network: Network

    @method("Reset", "options:a{sv}", action=Action.MANAGE)
    async def reset(self, caller: Caller, options: Options) -> None:
        query.check_options({}, plain_options(options))
        await self.monitor.reset_targets([self.network])

    @method("Remove", "options:a{sv}", action=Action.MANAGE)
    async def remove(self, caller: Caller, options: Options) -> None:
        query.check_options({}, plain_options(options))
        await self.monitor.remove_targets([self.network])

    @method("Describe", gives="json:s", action=Action.READ_ALL)
    def describe(self, caller: Caller) -> str:
        row: Row = {"address": self.address(), "since": self._began()}
        return json.dumps(row | self._row())

    @property_("Address", "s", emits="const", action=Action.READ_ALL)
    def address(self) -> str:
        return query.network_text(self.network)

    @property_("Since", "t", emits="false", action=Action.READ_ALL)
    def since(self) -> int:
        return _microseconds(self._began())

    @property_("InPackets", "t", emits="false", action=Action.READ_ALL)
    def in_packets(self) -> int:
        return int(self._row().get("in_packets", 0))

    @property_("InBytes", "t", emits="false", action=Action.READ_ALL)
    def in_bytes(self) -> int:
        return int(self._row().get("in_bytes", 0))

    @property_("OutPackets", "t", emits="false", action=Action.READ_ALL)
    def out_packets(self) -> int:
        return int(self._row().get("out_packets", 0))

    @property_("OutBytes", "t", emits="false", action=Action.READ_ALL)
    def out_bytes(self) -> int:
        return int(self._row().get("out_bytes", 0))

    def _began(self) -> float:
        since = self.monitor.targets().get(self.network)
        if since is None:  # removed while its caller's authority was looked into
            raise NoSuchTarget(f"{self.address()} is no target any more")
        return since

    def _row(self) -> Row:
        """Empty until the first tick has seen the target."""
        return answers.target_row(self.monitor.look(), self.address()) or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The subtree of all targets; nothing is stored for any of them."""

    monitor: Monitor
    action = Action.READ_ALL

    def find(self, path: str) -> Target | None:
        """The target at `path`."""
        try:
            network = query.parse_network(names.target_address(path) or "")
        except InvalidArgs:
            return None
        if network not in self.monitor.targets() or names.target_path(query.network_text(network)) != path:
            return None
        return Target(monitor=self.monitor, network=network)

    def labels(self) -> Iterable[str]:
        """The last path element of every target."""
        return [names.encode_label(query.network_text(network)) for network in self.monitor.targets()]

    def managed(self) -> Iterable[tuple[str, Mapping[str, Mapping[str, Any]]]]:
        """Path and properties of every target, made one by one."""
        table = self.monitor.look().targets
        counters = table.counters[:, : len(_COUNTERS)]
        place = {address: row for row, address in enumerate(table.columns["address"].tolist())}
        nothing = np.zeros(len(_COUNTERS), np.uint64)
        for network, since in self.monitor.targets().items():
            address = query.network_text(network)
            row = counters[place[address]] if address in place else nothing
            yield names.target_path(address), properties(address, since, row.tolist())


def properties(address: str, since: float, counters: list[int]) -> dict[str, dict[str, Any]]:
    """The properties of a target by interface, as object managers tell them."""
    figures = {name: counters[place] for name, place in _COUNTERS.items()}
    return {names.TARGET: {"Address": address, "Since": _microseconds(since), **figures}}


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
