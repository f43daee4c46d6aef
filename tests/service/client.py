"""A connection to the system bus that stays open, in a process of any person's."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.kernel.deadline import DEADLINE

#: Seconds that any call may take, with what it may have to wait for on the way.
PATIENCE = 2 * DEADLINE

BUS = "unix:path=/run/dbus/system_bus_socket"
BUS_NAME = "org.freedesktop.DBus"
INTERACTIVE = 4  #: flag of a call that may ask its user for a password

#: The program of the bus tests; people need not be able to read the source tree.
_SOURCE = (Path(__file__).parents[1] / "bus/caller.py").read_text()


class CallError(Exception):
    """A call was answered with an error."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text


class Caller:
    """Calls and listens, one thing at a time; `identity`: arguments of Popen that make it somebody's."""

    def __init__(self, identity: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            ["/usr/bin/python3", "-c", _SOURCE, BUS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **identity,
        )
        self.pid = self._process.pid
        #: Its unique name on the bus.
        self.name: str = self._read()

    def call(
        self,
        member: str,
        types: tuple[str, ...] = (),
        *values: Any,
        path: str = "/org/netmond1",
        interface: str = "org.netmond1.Manager",
        destination: str = "org.netmond1",
        flags: int = 0,
    ) -> Any:
        """The value of the only result, a list of several, None for none; raises CallError."""
        request = {"do": "call", "member": member, "types": types, "values": values, "path": path}
        reply = self._ask(**request, interface=interface, destination=destination, flags=flags)
        if "error" in reply:
            raise CallError(reply["error"], reply["text"])
        body = reply["body"]
        return body[0] if len(body) == 1 else body or None

    def call_bus(self, member: str, types: tuple[str, ...] = (), *values: Any) -> Any:
        """Call the bus itself."""
        path = "/org/freedesktop/DBus"
        return self.call(member, types, *values, path=path, interface=BUS_NAME, destination=BUS_NAME)

    def listen(self, *rules: str) -> None:
        """Receive messages that match one of the rules."""
        for rule in rules:
            self.call_bus("AddMatch", ("s",), rule)

    def signals_until(self, name: str, body: list[Any]) -> Iterator[dict[str, Any]]:
        """The signals received so far and up to this one, which is the last; each with path, name, body."""
        while True:
            signal = self._ask(do="signal", deadline=DEADLINE)
            yield signal
            if (signal["name"], signal["body"]) == (name, body):
                return

    def take(self, number: int) -> int:
        """A file that came with an answer, as a descriptor of ours; the process closes its own."""
        mine = os.open(f"/proc/{self.pid}/fd/{number}", os.O_RDONLY)
        self._ask(do="close", number=number)
        return mine

    def close(self) -> None:
        """Leave the bus."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        assert ready, f"no answer within {PATIENCE:g} s"
        return json.loads(self._process.stdout.readline())
