"""As a program (``python3 -m bench.listing COUNT``): the real D-Bus service over COUNT made-up flows.

The bus is that of DBUS_SYSTEM_BUS_ADDRESS. Prints a line when it answers, and runs until it is ended.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from netmond.footprint import stay_small

if TYPE_CHECKING:
    from netmond.model import Network, PacketLog, Session, Snapshot


class _Monitor:
    """A daemon with nothing but a Snapshot."""

    version = "0"
    log_level = "info"
    log_target = "null"

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def look(self) -> Snapshot:
        return self.snapshot

    def targets(self) -> Mapping[Network, float]:
        return {}

    async def add_targets(self, networks: Sequence[Network]) -> None: ...

    async def remove_targets(self, networks: Sequence[Network]) -> None: ...

    async def reset_targets(self, networks: Sequence[Network]) -> None: ...

    async def monitor_interface(self, name: str, attach: str) -> None: ...

    async def unmonitor_interface(self, name: str) -> None: ...

    def list_packet_logs(self) -> Sequence[PacketLog]:
        return ()

    async def enable_packet_log(self, uids: Sequence[int] | None, every: int) -> None: ...

    async def disable_packet_log(self, uids: Sequence[int] | None) -> None: ...

    def open_log(self, uid: int) -> int:
        raise FileNotFoundError

    def list_sessions(self) -> Sequence[Session]:
        return ()

    async def start_session(self, kind: str, uid: int, options: Mapping[str, Any]) -> tuple[int, int, int]:
        raise NotImplementedError

    async def stop_session(self, number: int) -> None: ...

    async def reload(self) -> list[str]:
        return []


async def _serve(count: int) -> None:
    from bench.snapshots import snapshot
    from netmond.bus.authority import Authority
    from netmond.bus.service import Service
    from netmond.users import Names

    service = Service(_Monitor(snapshot(count)), Names(), Authority(group=""))
    await service.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


def main(count: int) -> None:
    """Runs until it is ended."""
    stay_small()
    asyncio.run(_serve(count))


if __name__ == "__main__":
    main(int(sys.argv[1]))
