"""The decoders of what is in IP packets: TCP, UDP, ICMP, ICMPv6; in tcpdump's words. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from netmonctl import frame_rdma as rdma
from netmonctl.frame_line import Line, ipv4, ipv6

_NAMES = {
    1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 46: "rsvp", 47: "gre",
    50: "esp", 51: "ah", 58: "icmp6", 59: "no next header", 89: "ospf", 103: "pim", 112: "vrrp", 132: "sctp",
    136: "udplite",
}  # fmt: skip

_FLAGS = "FSRP.UEW"  # from the lowest bit on, RFC 9293
_FIN, _SYN, _RST, _ACK, _URG = 1, 2, 4, 16, 32

_ICMP_NAMES = {0: "echo reply", 8: "echo request", 13: "time stamp query", 14: "time stamp reply"}
_ICMP6_NAMES = {
    1: "destination unreachable", 2: "packet too big", 3: "time exceeded", 4: "parameter problem",
    128: "echo request", 129: "echo reply", 130: "multicast listener query",
    131: "multicast listener report", 132: "multicast listener done", 133: "router solicitation",
    134: "router advertisement", 135: "neighbor solicitation", 136: "neighbor advertisement",
    137: "redirect", 143: "multicast listener report v2",
}  # fmt: skip
_ICMP6_UNREACHABLE = {
    0: "unreachable route", 1: "unreachable prohibited", 2: "beyond scope", 3: "unreachable address",
    4: "unreachable port",
}  # fmt: skip


def name(protocol: int) -> str:
    """What a protocol of IP is called; empty if it has no name here."""
    return _NAMES.get(protocol, "")


def _ends(line: Line, ends: tuple[str, str], ports: tuple[int, int]) -> None:
    line.know(source_port=ports[0], destination_port=ports[1])
    line.add(f"{ends[0]}.{ports[0]} > {ends[1]}.{ports[1]}: ")


def _tcp(line: Line, ends: tuple[str, str], data: bytes, length: int) -> None:
    """RFC 9293. `length`: header and payload, as everywhere here."""
    line.layer = "tcp"
    source, destination = struct.unpack_from("!HH", data)
    _ends(line, ends, (source, destination))
    sequence, acknowledgement, offset, flags, window, _, urgent = struct.unpack_from("!IIBBHHH", data, 4)
    header = (offset >> 4) * 4
    payload = length - header
    if header < 20 or payload < 0:
        line.add(f"tcp {length} [bad header length {header}]")
        return
    letters = "".join(letter for bit, letter in enumerate(_FLAGS) if flags >> bit & 1)
    line.know(flags=letters, seq=sequence, window=window, payload=payload)
    line.add(f"Flags [{letters or 'none'}]")
    if payload or flags & (_SYN | _FIN | _RST):
        end = f":{(sequence + payload) & 0xFFFFFFFF}" if payload else ""
        line.add(f", seq {sequence}{end}")
    if flags & _ACK:
        line.know(ack=acknowledgement)
        line.add(f", ack {acknowledgement}")
    line.add(f", win {window}")
    if flags & _URG:
        line.add(f", urg {urgent}")
    if header > 20:
        options = list(_tcp_options(data[20:header]))
        cut = ",[|tcp]" if len(data) < header else ""
        line.add(f", options [{','.join(options)}{cut}]")
    line.add(f", length {payload}")


def _tcp_options(data: bytes) -> Iterator[str]:
    """As far as they are known; one that is broken ends them."""
    place = 0
    while place < len(data):
        kind = data[place]
        if kind < 2:
            yield ("eol", "nop")[kind]
            if kind == 0:
                return
            place += 1
            continue
        size = data[place + 1] if place + 1 < len(data) else 0
        value = data[place + 2 : place + size]
        if size < 2 or len(value) != size - 2:
            yield f"[bad opt {kind}]"
            return
        yield _tcp_option(kind, value)
        place += size


def _tcp_option(kind: int, value: bytes) -> str:
    if kind == 2 and len(value) == 2:
        return f"mss {int.from_bytes(value)}"
    if kind == 3 and len(value) == 1:
        return f"wscale {value[0]}"
    if kind == 4 and not value:
        return "sackOK"
    if kind == 5 and value and len(value) % 8 == 0:
        edges = struct.iter_unpack("!II", value)
        return f"sack {len(value) // 8} {''.join(f'{{{left}:{right}}}' for left, right in edges)}"
    if kind == 8 and len(value) == 8:
        return "TS val {} ecr {}".format(*struct.unpack("!II", value))
    return f"unknown-{kind}"


def _udp(line: Line, ends: tuple[str, str], data: bytes, length: int) -> None:
    """RFC 768."""
    line.layer = "udp"
    source, destination = struct.unpack_from("!HH", data)
    _ends(line, ends, (source, destination))
    (size,) = struct.unpack_from("!H", data, 4)
    # 0: a jumbogram (RFC 2675), or one that is not cut in segments yet.
    payload = (size or length) - 8
    line.know(payload=payload)
    if destination == rdma.ROCE_PORT and rdma.is_roce(data[8:]):
        rdma.roce_v2(line, data[8:], payload)
        return
    line.add(f"UDP, length {payload}" if payload >= 0 else f"truncated-udplength {size}")


def _icmp(line: Line, data: bytes, length: int) -> None:
    """RFC 792."""
    line.layer = "icmp"
    line.add("ICMP ")
    kind, code = struct.unpack_from("!BB", data)
    line.know(type=kind, code=code)
    if kind in (0, 8):
        identity, number = struct.unpack_from("!HH", data, 4)
        line.know(id=identity, seq=number)
        line.add(f"{_ICMP_NAMES[kind]}, id {identity}, seq {number}")
    elif kind == 3:
        line.add(_unreachable(code, data))
    elif kind == 5:
        line.add(f"redirect {ipv4(data[24:28])} to {'net' if code == 0 else 'host'} {ipv4(data[4:8])}")
    elif kind == 11:
        line.add("ip reassembly time exceeded" if code else "time exceeded in-transit")
    else:
        line.add(_ICMP_NAMES.get(kind, f"type-#{kind}"))
    line.add(f", length {length}")


def _unreachable(code: int, data: bytes) -> str:
    """What could not be reached: the packet in question follows the header of 8 bytes."""
    target, protocol = ipv4(data[24:28]), data[17]
    if code == 0:
        return f"net {target} unreachable"
    if code == 1:
        return f"host {target} unreachable"
    if code == 2:
        return f"{target} protocol {protocol} unreachable"
    if code == 3:
        (port,) = struct.unpack_from("!H", data, 8 + (data[8] & 15) * 4 + 2)
        return f"{target} {name(protocol) or f'protocol {protocol}'} port {port} unreachable"
    if code == 4:
        return f"{target} unreachable - need to frag (mtu {int.from_bytes(data[6:8])})"
    if code in (9, 10, 13):
        what, filter = "net" if code == 9 else "host", " filter" if code == 13 else ""
        return f"{what} {target} unreachable - admin prohibited{filter}"
    return f"{target} unreachable - #{code}"


def _icmp6(line: Line, data: bytes, length: int) -> None:
    """RFC 4443, RFC 4861."""
    line.layer = "icmp6"
    line.add("ICMP6, ")
    kind, code = struct.unpack_from("!BB", data)
    line.know(type=kind, code=code)
    line.add(_ICMP6_NAMES.get(kind, f"unknown icmp6 type ({kind})"))
    if kind in (128, 129):
        identity, number = struct.unpack_from("!HH", data, 4)
        line.know(id=identity, seq=number)
        line.add(f", id {identity}, seq {number}")
    elif kind == 1:
        line.add(f", {_ICMP6_UNREACHABLE.get(code, f'unreachable - #{code}')}{_embedded(code, data)}")
    elif kind == 2:
        line.add(f", mtu {struct.unpack_from('!I', data, 4)[0]}")
    elif kind == 3:
        line.add(f"{' (reassembly)' if code else ' in-transit'} for {ipv6(data[32:48])}")
    elif kind == 135:
        line.add(f", who has {ipv6(data[8:24])}")
    elif kind == 136:
        line.add(f", tgt is {ipv6(data[8:24])}")
    line.add(f", length {length}")


def _embedded(code: int, data: bytes) -> str:
    """Where the packet went that an error is about; its port, too, if that is what is not there."""
    target, protocol = ipv6(data[32:48]), data[14]
    if code != 4 or protocol not in WITH_PORTS:
        return f" {target}"
    (port,) = struct.unpack_from("!H", data, 8 + 40 + 2)
    return f", {target} {name(protocol)} port {port}"


#: By number: those whose lines begin with addresses and ports, and those that have no ports.
WITH_PORTS = {6: _tcp, 17: _udp}
WITHOUT_PORTS = {1: _icmp, 58: _icmp6}
