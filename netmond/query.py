"""Questions about a Snapshot: options as D-Bus callers give them, checked and understood. See answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, TypeVar

from netmond import views
from netmond.errors import InvalidArgs
from netmond.model import FlowKind, Network, TrafficType
from netmond.rdma.catalogue import KINDS

E = TypeVar("E", bound=IntEnum)

#: Options of each list and their D-Bus types.
_COMMON = {"sort": "s", "reverse": "b", "limit": "u", "scope": "s"}
_OWNER = {"user": "s", "unit": "s", "pid": "u"}
_FLOW = {
    "protocol": "s", "port": "q", "peer": "s", "interface": "s", "kind": "s", "traffic_type": "s",
    "active": "b",
}  # fmt: skip
_PORT = {"device": "s", "port": "u"}
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "users": _COMMON,
    "units": _COMMON | _OWNER,
    "processes": _COMMON | _OWNER,
    "flows": _COMMON | _OWNER | _FLOW,
    "interfaces": _COMMON | {"monitored": "b"},
    "targets": _COMMON,
    "rdma_ports": _COMMON | _PORT,
    "rdma_counters": _COMMON | _PORT | {"group": "s", "kind": "s"},
    "queue_pairs": _COMMON | _OWNER | _PORT,
}

#: Lists whose rows belong to nobody.
_PUBLIC = ("interfaces", "targets", "rdma_ports", "rdma_counters")
#: What a list is sorted by that is not by bytes.
_SORTED_BY = {"interfaces": "name", "rdma_ports": "device", "rdma_counters": "device"}
_COUNTER_GROUPS = ("counters", "hw_counters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One list with its validated options. `user` is as given; whoever may block resolves it into `uid`."""

    list: str
    sort: str
    reverse: bool = False
    limit: int = 100
    scope: str | None = None
    user: str | None = None
    uid: int | None = None
    unit: str | None = None
    pid: int | None = None
    protocol: int | None = None
    port: int | None = None
    peer: Network | None = None
    interface: str | None = None
    kind: FlowKind | None = None
    traffic: TrafficType | None = None
    active: bool | None = None
    monitored: bool | None = None
    device: str | None = None
    group: str | None = None
    counter_kind: str | None = None


def check_options(allowed: Mapping[str, str], options: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """The values of `options` (name -> D-Bus type, value); InvalidArgs unless all are `allowed` so."""
    for name, (signature, _) in options.items():
        if name not in allowed:
            known = f"allowed are: {', '.join(sorted(allowed))}" if allowed else "no option is allowed here"
            raise InvalidArgs(f"unknown option {shown(name)}; {known}")
        if signature != allowed[name]:
            raise InvalidArgs(
                f"option {name} has D-Bus type {shown(signature)}; it must be {allowed[name]!r}"
            )
    return {name: value for name, (_, value) in options.items()}


def one_of(what: str, value: str, allowed: Iterable[str]) -> str:
    """`value` if it is one of `allowed`, else InvalidArgs."""
    if value not in allowed:
        raise InvalidArgs(f"{what} cannot be {shown(value)}; allowed are: {', '.join(allowed)}")
    return value


def parse(list_: str, options: Mapping[str, tuple[str, Any]]) -> Query:
    """The Query for options of a list (a key of OPTIONS). Raises InvalidArgs."""
    values = check_options(OPTIONS[list_], options)
    values.setdefault("sort", _SORTED_BY.get(list_, "bytes"))
    if "scope" in values:
        one_of("scope", values["scope"], ("all",) if list_ in _PUBLIC else ("own", "all"))
    if "protocol" in values:
        values["protocol"] = _protocol(values["protocol"])
    if "kind" in values and list_ == "flows":
        values["kind"] = _member("kind", values["kind"], FlowKind)
    elif "kind" in values:
        values["counter_kind"] = one_of("kind", values.pop("kind"), KINDS)
    if "traffic_type" in values:
        values["traffic"] = _member("traffic_type", values.pop("traffic_type"), TrafficType)
    if "group" in values:
        one_of("group", values["group"], _COUNTER_GROUPS)
    if "peer" in values:
        values["peer"] = parse_network(values["peer"])
    return Query(list=list_, **values)


def parse_network(text: str) -> Network:
    """An address or prefix as people write it; an IPv4-mapped one means IPv4. Raises InvalidArgs."""
    try:
        if "%" in text:
            raise InvalidArgs(f"{shown(text)} names an interface; give the address without it")
        network = ip_network(text)
    except ValueError:
        raise InvalidArgs(f"{shown(text)} is not an IP address or prefix{_meant(text)}") from None
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        return IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


def network_text(network: Network) -> str:
    """A network as netmond names it: a single address without its prefix length."""
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if single else str(network)


def shown(text: str) -> str:
    """Text from outside, quoted, in one line of bounded length."""
    return repr(text if len(text) <= 64 else text[:61] + "...")


def _member(what: str, text: str, kind: type[E]) -> E:
    """The member of an enumeration by its name in small letters."""
    return kind[one_of(what, text, [each.name.lower() for each in kind]).upper()]


def _protocol(text: str) -> int:
    """An IP protocol by name or number."""
    numbers = {name: number for number, name in views.PROTOCOLS.items()}
    if text.lower() in numbers:
        return numbers[text.lower()]
    if text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= 255:
        return int(text)
    raise InvalidArgs(
        f"unknown protocol {shown(text)}; give a number up to 255 or one of: {', '.join(numbers)}"
    )


def _meant(text: str) -> str:
    """For a prefix with host bits set, which one it probably is."""
    try:
        return f" (did you mean {ip_network(text, strict=False)}?)"
    except ValueError:
        return ""
