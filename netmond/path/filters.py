"""What a path session wants to see: as C for its program, and as the stages that are of use for it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from socket import AF_INET, AF_INET6, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP

from netmond.errors import InvalidArgs
from netmond.kernel import wire
from netmond.path.hook_kinds import Hook
from netmond.path.stages import STAGES, Stage

Network = IPv4Network | IPv6Network

_PROTOCOLS = {"tcp": (IPPROTO_TCP,), "udp": (IPPROTO_UDP,), "icmp": (IPPROTO_ICMP, IPPROTO_ICMPV6)}
_FAMILIES = {4: AF_INET, 6: AF_INET6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a session wants to see; empty means everything.

    addresses and ports: of either side, any of them. protocols: tcp, udp, icmp. users: by uid; a packet
    whose user the kernel does not know at a stage is nobody's there. stages: by name, or
    ``kprobe:tcp_v4_do_rcv`` for this kind of hook only. rate: events a second, 0 for no limit. buffer: bytes
    of the ring, a power of two and whole pages.
    """

    addresses: tuple[Network, ...] = ()
    ports: tuple[int, ...] = ()
    protocols: tuple[str, ...] = ()
    users: tuple[int, ...] = ()
    drops: bool = False
    stages: tuple[str, ...] = ()
    rate: int = 10_000
    stats: bool = False
    buffer: int = 1 << 22


def _address_condition(network: Network) -> str:
    """C for: the two words at `address` are in it."""
    bits, value = network.prefixlen, int(network.network_address)
    if network.version == 4:
        bits, value = bits + 96, value | 0xFFFF << 32
    mask = (1 << 128) - (1 << 128 - bits)
    terms = []
    for word in (0, 1):
        masks, values = (
            int.from_bytes(number.to_bytes(16, "big")[8 * word : 8 * word + 8], sys.byteorder)
            for number in (mask, value)
        )
        if masks:
            terms.append(f"((address)[{word}] & {masks:#x}ULL) == {values:#x}ULL")
    return f"({' && '.join(terms) or 'true'})"


def _condition(macro: str, parameter: str, terms: Iterable[str]) -> str:
    return f"#define {macro}({parameter}) ({' || '.join(terms) or 'true'})\n"


def filter_source(options: Options) -> str:
    """The filter as C macros of constants: a look into a map would cost more than most of them."""
    numbers = [number for name in options.protocols for number in _PROTOCOLS[name]]
    return (
        _condition("PROTOCOL_MATCHES", "number", (f"(number) == {number}" for number in numbers))
        + _condition("ADDRESS_MATCHES", "address", map(_address_condition, options.addresses))
        + _condition("PORT_MATCHES", "port", (f"(port) == {port}" for port in options.ports))
        + f"#define HAS_PORTS {int(bool(options.ports))}\n"
        + _condition("USER_MATCHES", "uid", (f"(uid) == {uid}U" for uid in options.users))
    )


def known_stages(names: Iterable[str]) -> tuple[str, ...]:
    """The same names. InvalidArgs: there is no such stage, or no such hook for it (KIND:NAME)."""
    found = tuple(names)
    known = {f"{hook.kind}:{stage.name}" for stage in STAGES for hook in stage.hooks}
    known |= {stage.name for stage in STAGES}
    for name in found:
        if name not in known:
            raise InvalidArgs(f"option stages: there is no {name!a}; netmonctl path -d lists what there is")
    return found


def why_not(stage: Stage, options: Options) -> str:
    """Why a stage need not be looked at, empty: it must be."""
    if options.stages and stage.name not in {name.rpartition(":")[2] for name in options.stages}:
        return "not asked for"
    if options.drops and stage.event == wire.PATH_PASS:
        return "not asked for: only drops, retransmits and resets are"
    wanted = {number for name in options.protocols for number in _PROTOCOLS[name]}
    if wanted and stage.protocols and not wanted & stage.protocols:
        return "no packet of these protocols passes it"
    if options.ports and stage.protocols and stage.protocols <= set(_PROTOCOLS["icmp"]):
        return "what passes it has no ports"
    families = {_FAMILIES[network.version] for network in options.addresses}
    if stage.family and families and stage.family not in families:
        return "no packet of these addresses passes it"
    return ""


def wanted_hooks(stage: Stage, options: Options) -> tuple[Hook, ...]:
    """The hooks that may be tried for a stage."""
    named = [name.rpartition(":") for name in options.stages]
    kinds = {kind for kind, _, name in named if name == stage.name and kind}
    return tuple(hook for hook in stage.hooks if not kinds or hook.kind in kinds)
