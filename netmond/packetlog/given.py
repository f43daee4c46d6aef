"""What the packet log is given: the kernel's part of it, and the users that the configuration names."""

from __future__ import annotations

import asyncio
import logging
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netmond.kernel.packet_log import PacketLogTables
from netmond.model import NOBODY_UID

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What the meter has for it. reason: why it cannot log packets, if it cannot."""

    #: Descriptors of the log's maps, and the flow table's.
    maps: Mapping[str, int] = field(default_factory=dict)
    tables: PacketLogTables | None = None
    slots: int = 0
    reason: str = ""

    def unlogged(self) -> dict[int, list[int]]:
        """What the kernel has counted as missing in the logs: words of wire.UNLOGGED, by user."""
        if self.tables is None:
            return {}
        users, missing = self.tables.unlogged()
        words = missing.view("u8").reshape(len(users), -1).tolist()
        return dict(zip(users.tolist(), words, strict=True))


async def configured(options: Mapping[str, Any]) -> dict[int, int]:
    """Of which users one of how many packets is logged; options: of [output.csv]."""
    users = [NOBODY_UID] if options["mode"] == "packet" else await _uids(options["packet_users"])
    return dict.fromkeys(users, options["sample"])


async def _uids(names: Sequence[str]) -> list[int]:
    """The numbers of users that are given by name or number; of others there is a warning."""
    found = []
    for name in names:
        try:
            uid = int(name) if name.isdecimal() else (await asyncio.to_thread(pwd.getpwnam, name)).pw_uid
        except KeyError:
            log.warning("[output.csv] packet_users: there is no user %s", name)
        else:
            found.append(uid)
    return list(dict.fromkeys(found))
