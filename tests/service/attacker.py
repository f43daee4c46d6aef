"""A hostile program of an ordinary user, and the raw D-Bus it speaks. A program of its own, without imports
from here: users need not be able to read the source tree.

`attack COUNT [NAME]` attacks with COUNT connections at once, says "attacking" once all are there, and ends
with standard input; `spoof NAME`, `polkit -` and `descriptors COUNT` are single tricks. The last line of all
is JSON: what the bus and netmond answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from itertools import count, cycle, islice
from typing import Any

BUS = "/run/dbus/system_bus_socket"
CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
NO_REPLY, INTERACTIVE = 1, 4

_FIELDS = {"path": (1, "o"), "interface": (2, "s"), "member": (3, "s"), "error_name": (4, "s")}
_FIELDS |= {"destination": (6, "s"), "sender": (7, "s")}

_DBUS = "org.freedesktop.DBus"
DBUS = {"destination": _DBUS, "path": "/org/freedesktop/DBus", "interface": _DBUS}
HELLO = {**DBUS, "member": "Hello"}
NETMOND = {"destination": "org.netmond1", "path": "/org/netmond1", "interface": "org.netmond1.Manager"}

DESCRIBE = {**NETMOND, "member": "Describe"}

#: What the bus says to answers that nobody has asked for.
REFUSED_BY_BUS = "org.freedesktop.DBus.Error.AccessDenied"

#: A body of type a{sv} without entries.
EMPTY = bytes(8)
TEN_MEGABYTES = 10_000_000


def text(value: str) -> bytes:
    """A string of a body."""
    data = value.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def message(
    serial: int,
    fields: Mapping[str, str],
    *,
    kind: int = CALL,
    flags: int = 0,
    signature: str = "",
    body: bytes = b"",
    reply_serial: int = 0,
    descriptors: int = 0,
) -> bytes:
    """A whole message, little-endian."""
    entries = [(*_FIELDS[name], text(value)) for name, value in fields.items()]
    if signature:
        entries.append((8, "g", bytes([len(signature)]) + signature.encode() + b"\0"))
    for code, number in ((5, reply_serial), (9, descriptors)):
        if number:
            entries.append((code, "u", struct.pack("<I", number)))
    header = b""
    for code, type_, value in entries:
        header += bytes(-len(header) % 8) + bytes([code, 1]) + type_.encode() + b"\0" + value
    start = struct.pack("<cBBBIII", b"l", kind, flags, 1, len(body), serial, len(header))
    return start + header + bytes(-len(start + header) % 8) + body


class Client:
    """A connection that has said Hello."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.serials = count(2)

    @staticmethod
    async def connect() -> Client:
        reader, writer = await asyncio.open_unix_connection(BUS, limit=1 << 16)
        client = Client(reader, writer)
        writer.write(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
        await reader.readline()
        writer.write(b"BEGIN\r\n" + message(1, HELLO))
        await client.answer()
        return client

    async def send(self, fields: Mapping[str, str], **what: Any) -> None:
        """A message with the next serial."""
        self.writer.write(message(next(self.serials), fields, **what))
        await self.writer.drain()

    async def call(self, member: str, signature: str = "", body: bytes = b"", flags: int = 0) -> None:
        """A call of netmond's manager."""
        await self.send({**NETMOND, "member": member}, signature=signature, body=body, flags=flags)

    async def answer(self) -> str:
        """The next reply: the name of an error, or "" for a result; signals are passed over."""
        while True:
            start = await self.reader.readexactly(16)
            kind, body, fields = start[1], *struct.unpack("<I4xI", start[4:])
            header = await self.reader.readexactly(fields + -fields % 8)
            await self.reader.readexactly(body)
            if kind in (RETURN, ERROR):
                return next(_error_names(header[:fields]), "") if kind == ERROR else ""

    def close(self) -> None:
        self.writer.close()


def _error_names(header: bytes) -> Iterator[str]:
    at = 0
    while at < len(header):
        at += -at % 8
        code, kind = header[at], header[at + 2 : at + 3]
        at += 4
        if kind == b"u":
            at += 4
            continue
        length, skip = (header[at], 1) if kind == b"g" else (struct.unpack_from("<I", header, at)[0], 4)
        if code == 4:
            yield header[at + skip : at + skip + length].decode()
        at += skip + length + 1


# -- attacks: each has a connection, and goes on until it is cancelled ----------------------------------

Attack = Callable[[Client, set[str]], Awaitable[None]]


async def never_reads(client: Client, _: set[str]) -> None:
    """Asks for the largest answers there are and leaves them lying."""
    for _call in range(300):
        await client.call("ListInterfaces", "a{sv}", EMPTY)
    await asyncio.Event().wait()


async def half_message(client: Client, _: set[str]) -> None:
    """Begins a large call and never ends it."""
    whole = message(2, DESCRIBE, signature="s", body=text("x" * 100_000))
    client.writer.write(whole[: len(whole) // 2])
    await asyncio.Event().wait()


async def huge(client: Client, said: set[str]) -> None:
    """10 MB as one string, as bytes, as a million addresses, one after the other."""
    address = text("192.0.2.1") + bytes(2)
    addresses = address * (TEN_MEGABYTES // len(address))
    bodies = (
        ("s", text("x" * TEN_MEGABYTES)),
        ("ay", struct.pack("<I", TEN_MEGABYTES) + bytes(TEN_MEGABYTES)),
        ("as", struct.pack("<I", len(addresses) - 2) + addresses[:-2]),
    )
    for signature, body in bodies:
        await client.call("AddTargets", signature, body)
        said.add(await client.answer())
    await asyncio.Event().wait()


async def nonsense(client: Client, said: set[str]) -> None:
    """Objects, interfaces, members and signatures that do not exist."""
    wrong: tuple[tuple[dict[str, str], str, bytes], ...] = (
        ({**DESCRIBE, "path": "/org/netmond1/nothing"}, "", b""),
        ({**DESCRIBE, "path": "/org/netmond1/" + "x" * 10_000}, "", b""),
        ({**DESCRIBE, "interface": "org.netmond1.Oracle"}, "", b""),
        ({**DESCRIBE, "member": "Divine"}, "", b""),
        (DESCRIBE, "s", text("please")),
        ({**DESCRIBE, "member": "ListFlows"}, "a{ss}", EMPTY),
        ({**DESCRIBE, "member": "ListFlows"}, "s", text("limit")),
    )
    for fields, signature, body in cycle(wrong):
        await client.send(fields, signature=signature, body=body)
        said.add(await client.answer())


async def forbidden(client: Client, said: set[str]) -> None:
    """As many calls at once as there may be, each of which takes authority that the caller has not."""
    for _ in range(100):
        await client.call("ListTargets", "a{sv}", EMPTY)
    while True:
        said.add(await client.answer())
        await client.call("ListTargets", "a{sv}", EMPTY)


async def own_figures(client: Client, said: set[str]) -> None:
    """What everybody may ask, again and again, many at once."""
    for _ in range(100):
        await client.call("ListFlows", "a{sv}", EMPTY)
    while True:
        said.add(await client.answer())
        await client.call("ListFlows", "a{sv}", EMPTY)


async def flood(client: Client, _: set[str]) -> None:
    """Calls that want no answer, as fast as the bus takes them."""
    while True:
        await client.send(DESCRIBE, flags=NO_REPLY)
        await asyncio.sleep(0)


async def signals(client: Client, _: set[str]) -> None:
    """Signals to netmond, and such as only the bus may send."""
    changed = {**DBUS, "destination": "org.netmond1", "member": "NameOwnerChanged"}
    gone = text(":1.1") + bytes(3) + text(":1.1") + bytes(3) + text("")
    while True:
        await client.send({**NETMOND, "member": "Reloaded"}, kind=SIGNAL)
        await client.send(changed, kind=SIGNAL, signature="sss", body=gone)
        await asyncio.sleep(0)


async def next_client() -> Client:
    """Another connection, as soon as the bus takes one: it hangs up on whoever is not through within 5 s."""
    while True:
        with suppress(OSError, EOFError):
            return await Client.connect()


async def garbage(client: Client, _: set[str]) -> None:
    """Bytes that are no message: the bus hangs up, and there is the next connection."""
    while True:
        client.writer.write(b"l\x09\x00\x01" + b"\xff" * 4096)
        with suppress(OSError, EOFError):
            await client.reader.read()
        client.close()
        client = await next_client()


async def comes_and_goes(client: Client, _: set[str]) -> None:
    """Asks and is gone before the answer, again and again under a new name."""
    while True:
        await client.call("ListTargets", "a{sv}", EMPTY, INTERACTIVE)
        client.close()
        client = await next_client()


#: What one connection does each. In a turn of its loop the bus takes 2 KiB of every sender, and passes 2 KiB
#: on to a receiver: more connections that never wait would fill the bus, whoever the receiver is.
FLOODS: tuple[Attack, ...] = (flood, signals)
#: What a few connections do each: the bus holds all of a message before it passes it on.
HUGE: tuple[Attack, ...] = (huge,) * 6
#: What all the others do.
ATTACKS: tuple[Attack, ...] = (
    never_reads, half_message, nonsense, forbidden, own_figures, garbage, comes_and_goes,
)  # fmt: skip


async def attack(number: int, only: str) -> dict[str, list[str]]:
    """Attack until standard input ends; the errors that came, by attack ("" for a result).

    `only` names the attack of all connections; empty for a mixture.
    """
    said: dict[str, set[str]] = defaultdict(set)
    clients = [await Client.connect() for _ in range(number)]
    print("attacking", flush=True)
    known = {what.__name__: what for what in (*FLOODS, *HUGE, *ATTACKS)}
    mixture = [*FLOODS, *HUGE, *islice(cycle(ATTACKS), number)][:number]
    attacks = [known[only]] * number if only else mixture
    tasks = [
        asyncio.create_task(_until_hung_up(what, client, said[what.__name__]))
        for what, client in zip(attacks, clients, strict=True)
    ]
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {name: sorted(errors) for name, errors in said.items()}


async def _until_hung_up(attack: Attack, client: Client, said: set[str]) -> None:
    try:
        await attack(client, said)
    except (OSError, EOFError):
        said.add("hung up")


# -- single tricks ---------------------------------------------------------------------------------------


async def spoof(sender: str) -> str:
    """A call in somebody else's name."""
    client = await Client.connect()
    body = struct.pack("<I", 14) + text("192.0.2.1") + bytes(2) + bytes(4)
    fields = {**NETMOND, "member": "AddTargets", "sender": sender}
    await client.send(fields, signature="asa{sv}", body=body)
    return await client.answer()


async def answers_of_polkit() -> str:
    """Asks for what is not allowed, and answers in the place of polkit, to every question there is."""
    client = await Client.connect()
    await client.call("ListTargets", "a{sv}", EMPTY)
    fields = {"destination": "org.netmond1", "sender": "org.freedesktop.PolicyKit1"}
    yes = struct.pack("<IIII", 1, 0, 0, 0)
    for serial in range(1, 2000):
        await client.send(fields, kind=RETURN, reply_serial=serial, signature="(bba{ss})", body=yes)
    while (said := await client.answer()) == REFUSED_BY_BUS:
        pass
    return said


async def descriptors(number: int) -> str:
    """Calls with open files attached."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(BUS)
        raw.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
        raw.recv(512)
        raw.sendall(b"NEGOTIATE_UNIX_FD\r\n")
        raw.recv(512)
        raw.sendall(b"BEGIN\r\n" + message(1, HELLO))
        raw.setblocking(False)
        client = Client(*await asyncio.open_unix_connection(sock=raw.dup()))
        await client.answer()  # until then the bus reads bytes only, and loses what comes with them
        for serial in range(2, number + 2):
            frame = message(serial, DESCRIBE, signature="h", body=bytes(4), descriptors=1)
            socket.send_fds(raw, [frame], [0])
        said = {await client.answer() for _ in range(number)}
    return " ".join(sorted(said))


def main(what: str, argument: str, only: str = "") -> Any:
    """What came of it."""
    if what == "attack":
        return asyncio.run(attack(int(argument), only))
    if what == "spoof":
        return asyncio.run(spoof(argument))
    if what == "polkit":
        return asyncio.run(answers_of_polkit())
    return asyncio.run(descriptors(int(argument)))


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])), flush=True)
