"""Packet logs that were switched on by hand: they last until they are switched off, over restarts and boots.

The file is an object in JSON: the user id, or "everyone", and of how many packets one is logged. It is
replaced as a whole at each change. What the configuration says is in force as well, and is not in here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from netmond.errors import NetmondError
from netmond.model import NOBODY_UID

log = logging.getLogger(__name__)

FILE = "packetlogs.json"

_EVERYONE = "everyone"

Chosen = Mapping[int, int]  #: by uid, NOBODY_UID for everyone


class PacketLogs(Protocol):
    """What logs packets; None stands for everyone."""

    async def enable(self, uids: Sequence[int] | None, every: int) -> None: ...

    async def disable(self, uids: Sequence[int] | None) -> None: ...


class ByHand:
    """Switches packet logs and remembers it."""

    def __init__(self, logs: PacketLogs, directory: Path) -> None:
        self._logs = logs
        self._path = directory / FILE
        self._chosen: dict[int, int] = {}
        self._turn = asyncio.Lock()

    async def resume(self) -> None:
        """Switches on again what was on. What is not possible now is told, and stays for another start."""
        async with self._turn:
            try:
                self._chosen = await asyncio.to_thread(load, self._path)
            except NetmondError as error:
                log.warning("%s; packet logs that were switched on by hand are off", error)
            for uid, every in self._chosen.items():
                try:
                    await self._logs.enable(None if uid == NOBODY_UID else [uid], every)
                except NetmondError as error:
                    whose = "everyone" if uid == NOBODY_UID else f"user {uid}"
                    log.warning("The packet log of %s, switched on by hand, stays off: %s", whose, error)

    async def enable(self, uids: Sequence[int] | None, every: int) -> None:
        """As PacketLogs.enable; and again at each start."""
        async with self._turn:
            await self._logs.enable(uids, every)
            self._chosen |= dict.fromkeys((NOBODY_UID,) if uids is None else uids, every)
            await self._save()

    async def disable(self, uids: Sequence[int] | None) -> None:
        """As PacketLogs.disable; and no more at the next start."""
        async with self._turn:
            await self._logs.disable(uids)
            gone = self._chosen.keys() if uids is None else set(uids)
            self._chosen = {uid: every for uid, every in self._chosen.items() if uid not in gone}
            await self._save()

    async def _save(self) -> None:
        """Who switched it has what he asked for: that it is not remembered is for the administrator."""
        try:
            await asyncio.to_thread(save, self._path, dict(self._chosen))
        except NetmondError as error:
            log.warning("%s; a restart now would switch packet logs as before", error)


def load(path: Path) -> dict[int, int]:
    """What was saved, nothing if nothing was. NetmondError: it cannot be used."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), encoding="ascii") as file:
            return {_uid(name): _every(every) for name, every in json.load(file).items()}
    except FileNotFoundError:
        return {}
    except Exception as error:  # whatever damage may lead to
        raise NetmondError(f"cannot use {path}: {error}") from None


def save(path: Path, chosen: Chosen) -> None:
    """Replaces what was saved. NetmondError: it could not, and what was saved before still is."""
    draft = path.with_suffix(".new")
    names = {_EVERYONE if uid == NOBODY_UID else str(uid): every for uid, every in chosen.items()}
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(draft, flags, 0o640), "w", encoding="ascii") as file:
            json.dump(names, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise NetmondError(f"cannot write {path}: {error.strerror}") from error


def _uid(name: str) -> int:
    uid = NOBODY_UID if name == _EVERYONE else int(name)
    if not 0 <= uid <= NOBODY_UID:
        raise ValueError(f"{name} is no user")
    return uid


def _every(value: int) -> int:
    if not 1 <= value <= NOBODY_UID:
        raise ValueError(f"one of {value} packets cannot be logged")
    return value
