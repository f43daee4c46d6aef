"""A D-Bus client as a program of its own, so that tests can call as any user.

Reads one JSON request a line, writes one JSON answer a line. Values inside an a{sv} go in as [type, value].
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import sys
from typing import Any

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageFlag, MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant


def plain(value: Any) -> Any:
    """A received value without its variants."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def variants(value: Any, signature: str) -> Any:
    """The other way round, for an a{sv} and a v."""
    if signature == "v":
        return Variant(*value)
    if signature == "a{sv}":
        return {key: Variant(*item) for key, item in value.items()}
    return value


async def answer(bus: MessageBus, signals: asyncio.Queue[Message], request: dict[str, Any]) -> Any:
    """What the service says to one request."""
    if request["do"] == "signal":
        return shown(await asyncio.wait_for(signals.get(), request["deadline"]))
    if request["do"] == "signals":
        return [
            shown(await asyncio.wait_for(signals.get(), request["deadline"]))
            for _ in range(request["count"])
        ]
    if request["do"] == "burst":
        calls = [asyncio.create_task(call(bus, request)) for _ in range(request["count"])]
        while sum(task.done() for task in calls) < request["refused"]:
            await asyncio.wait(
                [task for task in calls if not task.done()], return_when=asyncio.FIRST_COMPLETED
            )
        return [reply.error_name for task in calls if task.done() and (reply := task.result())]
    if request["do"] == "close":
        return os.close(request["number"])
    reply = await call(bus, request)
    if reply is None:
        return None
    if reply.message_type is MessageType.ERROR:
        return {"error": reply.error_name, "text": reply.body[0] if reply.body else ""}
    return {"body": results(reply), "signature": reply.signature}


def results(reply: Message) -> list[Any]:
    """The values of an answer. A file that is all of it is read; others are numbers of open descriptors."""
    if reply.signature == "h":
        return [taken(fd) for fd in reply.unix_fds]
    return [
        reply.unix_fds[value] if kind.signature == "h" else plain(value)
        for kind, value in zip(reply.signature_tree.types, reply.body, strict=True)
    ]


def taken(fd: int) -> dict[str, Any]:
    """What can be said of a file that came as an answer."""
    with open(fd, "rb") as file:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        return {"content": file.read().decode(), "writable": flags & os.O_ACCMODE != os.O_RDONLY}


def shown(signal: Message) -> dict[str, Any]:
    """A signal as JSON."""
    return {"path": signal.path, "name": f"{signal.interface}.{signal.member}", "body": plain(signal.body)}


async def call(bus: MessageBus, request: dict[str, Any]) -> Message | None:
    """Make the call a request describes."""
    message = Message(
        destination=request["destination"],
        path=request["path"],
        interface=request["interface"],
        member=request["member"],
        signature="".join(request["types"]),
        body=[
            variants(value, kind) for value, kind in zip(request["values"], request["types"], strict=True)
        ],
        flags=MessageFlag(request["flags"]),
    )
    return await bus.call(message)


async def main(address: str) -> None:
    """Serve requests until standard input ends."""
    bus = await MessageBus(bus_address=address, negotiate_unix_fd=True).connect()
    signals: asyncio.Queue[Message] = asyncio.Queue()

    def keep(message: Message) -> None:
        if message.message_type is MessageType.SIGNAL and message.member != "NameAcquired":
            signals.put_nowait(message)

    bus.add_message_handler(keep)
    loop = asyncio.get_running_loop()
    print(json.dumps(bus.unique_name), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await answer(bus, signals, json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
