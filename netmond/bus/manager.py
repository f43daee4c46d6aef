"""org.netmond1.Manager: what netmond knows and what it is told to do."""

from __future__ import annotations

import json
from dataclasses import dataclass

from netmond import answers, query
from netmond.bus import names
from netmond.bus.authority import Action, Caller
from netmond.bus.descriptors import Descriptor, Passed
from netmond.bus.marshal import plain_options
from netmond.bus.monitor import Monitor
from netmond.bus.packetlogs import PacketLogs
from netmond.bus.sessions import Sessions
from netmond.bus.typed import Interface, Options, method, property_, signal
from netmond.bus.viewing import Viewing
from netmond.columns import Row
from netmond.errors import InvalidArgs, LimitExceeded, NoSuchTarget
from netmond.model import Network, Snapshot
from netmond.sessions.options import CAPTURE, PATH

#: Addresses in one call.
MAX_ADDRESSES = 10_000

_LIST = ("options:a{sv}", "rows:aa{sv} meta:a{sv}")
_START = ("options:a{sv}", "session:t stream:h progress:h")
_ATTACH = ("auto", "tc", "xdp", "xdp-generic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manager(Interface):
    name = names.MANAGER

    monitor: Monitor
    viewing: Viewing
    logs: PacketLogs
    sessions: Sessions

    reloaded = signal("Reloaded", "warnings:as")

    @method("ListUsers", *_LIST)
    async def list_users(self, caller: Caller, options: Options) -> tuple[object, Row]:
        return await self.viewing.rows(caller, "users", options)

    @method("ListUnits", *_LIST)
    async def list_units(self, caller: Caller, options: Options) -> tuple[object, Row]:
        return await self.viewing.rows(caller, "units", options)

    @method("ListProcesses", *_LIST)
    async def list_processes(self, caller: Caller, options: Options) -> tuple[object, Row]:
        return await self.viewing.rows(caller, "processes", options)

    @method("ListFlows", *_LIST)
    async def list_flows(self, caller: Caller, options: Options) -> tuple[object, Row]:
        return await self.viewing.rows(caller, "flows", options)

    @method("ListInterfaces", *_LIST)
    def list_interfaces(self, caller: Caller, options: Options) -> tuple[object, Row]:
        return self.viewing.of_machine("interfaces", options)

    @method("ListBooks", *_LIST, action=Action.READ_ALL)
    def list_books(self, caller: Caller, options: Options) -> tuple[object, Row]:
        return self.viewing.books(options)

    @method("ListTargets", *_LIST, action=Action.READ_ALL)
    def list_targets(self, caller: Caller, options: Options) -> tuple[object, Row]:
        return self.viewing.targets(options)

    @method("ListRdmaPorts", *_LIST)
    def list_rdma_ports(self, caller: Caller, options: Options) -> tuple[object, Row]:
        return self.viewing.of_machine("rdma_ports", options)

    @method("ListRdmaCounters", *_LIST)
    def list_rdma_counters(self, caller: Caller, options: Options) -> tuple[object, Row]:
        return self.viewing.rdma_counters(options)

    @method("ListQueuePairs", *_LIST)
    async def list_queue_pairs(self, caller: Caller, options: Options) -> tuple[object, Row]:
        return await self.viewing.rows(caller, "queue_pairs", options)

    @method("GetUser", "uid:u options:a{sv}", "user:a{sv}")
    async def get_user(self, caller: Caller, uid: int, options: Options) -> Row:
        return await self.viewing.user(caller, uid, options)

    @method("AddTargets", "addresses:as options:a{sv}", "paths:ao", action=Action.MANAGE)
    async def add_targets(self, caller: Caller, addresses: list[str], options: Options) -> list[str]:
        networks = _networks(addresses, options)
        await self.monitor.add_targets(networks)
        return [names.target_path(query.network_text(network)) for network in networks]

    @method("RemoveTargets", "addresses:as options:a{sv}", action=Action.MANAGE)
    async def remove_targets(self, caller: Caller, addresses: list[str], options: Options) -> None:
        await self.monitor.remove_targets(_networks(addresses, options))

    @method("ResetTargets", "addresses:as options:a{sv}", action=Action.MANAGE)
    async def reset_targets(self, caller: Caller, addresses: list[str], options: Options) -> None:
        await self.monitor.reset_targets(_networks(addresses, options))

    @method("GetTarget", "address:s", "path:o", action=Action.READ_ALL)
    def get_target(self, caller: Caller, address: str) -> str:
        network = query.parse_network(address)
        if network not in self.monitor.targets():
            raise NoSuchTarget(f"{query.network_text(network)} is not a target; add it first")
        return names.target_path(query.network_text(network))

    @method("MonitorInterface", "name:s options:a{sv}", action=Action.MANAGE)
    async def monitor_interface(self, caller: Caller, name: str, options: Options) -> None:
        attach = query.check_options({"attach": "s"}, plain_options(options)).get("attach", "auto")
        await self.monitor.monitor_interface(name, query.one_of("attach", attach, _ATTACH))

    @method("UnmonitorInterface", "name:s options:a{sv}", action=Action.MANAGE)
    async def unmonitor_interface(self, caller: Caller, name: str, options: Options) -> None:
        query.check_options({}, plain_options(options))
        await self.monitor.unmonitor_interface(name)

    @method("EnablePacketLog", "users:au options:a{sv}", action=Action.MANAGE)
    async def enable_packet_log(self, caller: Caller, users: list[int], options: Options) -> None:
        await self.logs.enable(users, options)

    @method("DisablePacketLog", "users:au options:a{sv}", action=Action.MANAGE)
    async def disable_packet_log(self, caller: Caller, users: list[int], options: Options) -> None:
        await self.logs.disable(users, options)

    @method("ListPacketLogs", *_LIST)
    async def list_packet_logs(self, caller: Caller, options: Options) -> tuple[object, Row]:
        return await self.logs.rows(caller, options)

    @method("OpenLog", "uid:u options:a{sv}", "file:h")
    async def open_log(self, caller: Caller, uid: int, options: Options) -> Passed:
        return await self.logs.file(caller, uid, options)

    @method("StartCapture", *_START, action=Action.CAPTURE)
    async def start_capture(self, caller: Caller, options: Options) -> tuple[int, Descriptor, Descriptor]:
        return await self.sessions.start(caller, CAPTURE, options)

    @method("StartPath", *_START, action=Action.CAPTURE)
    async def start_path(self, caller: Caller, options: Options) -> tuple[int, Descriptor, Descriptor]:
        return await self.sessions.start(caller, PATH, options)

    @method("StopSession", "session:t options:a{sv}")
    async def stop_session(self, caller: Caller, session: int, options: Options) -> None:
        await self.sessions.stop(caller, session, options)

    @method("ListSessions", *_LIST)
    async def list_sessions(self, caller: Caller, options: Options) -> tuple[object, Row]:
        return await self.sessions.rows(caller, options)

    @method("Reload", "options:a{sv}", "warnings:as", action=Action.MANAGE)
    async def reload(self, caller: Caller, options: Options) -> list[str]:
        query.check_options({}, plain_options(options))
        return await self.monitor.reload()

    @method("Describe", gives="json:s")
    def describe(self, caller: Caller) -> str:
        return json.dumps(answers.describe(self.monitor.look(), self.monitor.version))

    @property_("Version", "s", emits="const")
    def version(self) -> str:
        return self.monitor.version

    @property_("Started", "t", emits="const")
    def started(self) -> int:
        return round(self.monitor.snapshot.started * 1e6)

    @property_("Since", "t", emits="const")
    def since(self) -> int:
        return round(self.monitor.snapshot.since * 1e6)

    @property_("Features", "a(sss)", emits="true")
    def features(self) -> list[tuple[str, str, str]]:
        return features(self.monitor.snapshot)

    @property_("Losses", "a{st}", emits="false")
    def losses(self) -> dict[str, int]:
        return {loss.name: loss.count for loss in self.monitor.look().losses}

    @property_("TargetCount", "u", emits="false")
    def target_count(self) -> int:
        return len(self.monitor.targets())

    @property_("FlowCount", "u", emits="false")
    def flow_count(self) -> int:
        return len(self.monitor.look().flows)

    @property_("UserCount", "u", emits="false")
    def user_count(self) -> int:
        return len(self.monitor.look().users)


def features(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    """The Features property."""
    return [(feature.name, feature.state.value, feature.reason) for feature in snapshot.features]


def _networks(addresses: list[str], options: Options) -> list[Network]:
    """The targets named by a call that takes no options."""
    query.check_options({}, plain_options(options))
    if len(addresses) > MAX_ADDRESSES:
        raise LimitExceeded(f"{len(addresses)} addresses in one call; at most {MAX_ADDRESSES} are taken")
    networks = [query.parse_network(address) for address in addresses]
    if len(set(networks)) < len(networks):
        twice = next(network for network in networks if networks.count(network) > 1)
        raise InvalidArgs(f"{query.network_text(twice)} is given twice")
    return networks
