"""Packet logs switched on by hand, over several starts of the daemon."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from netmond import byhand
from netmond.byhand import ByHand
from netmond.errors import NetmondError, NotFound, Unavailable
from netmond.model import NOBODY_UID

ALICE, BOB, CAROL = 1000, 1001, 1002


class Logs:
    """The packet logs of one start, in memory; `broken`: for this user nothing can be switched on."""

    def __init__(self, broken: int | None = None) -> None:
        self.every: dict[int, int] = {}
        self._broken = broken

    async def enable(self, uids: Sequence[int] | None, every: int) -> None:
        if uids and self._broken in uids:
            raise Unavailable("no room")
        self.every |= dict.fromkeys((NOBODY_UID,) if uids is None else uids, every)

    async def disable(self, uids: Sequence[int] | None) -> None:
        if uids is None:
            self.every.clear()
            return
        for uid in uids:
            if uid not in self.every:
                raise NotFound(f"packets of user {uid} are not logged")
            del self.every[uid]


def started(directory: Path, *changes: tuple[str, Any, int] | tuple[str, Any], **how: Any) -> Logs:
    """A start of the daemon, in which these changes are made."""
    logs = Logs(**how)

    async def run() -> None:
        by_hand = ByHand(logs, directory)
        await by_hand.resume()
        for what, *arguments in changes:
            await getattr(by_hand, what)(*arguments)

    asyncio.run(run())
    return logs


def test_lasts_until_it_is_switched_off(tmp_path: Path) -> None:
    """On at the next start as it was left; off stays off."""
    started(tmp_path, ("enable", [ALICE, BOB], 1), ("enable", [BOB], 7), ("enable", [CAROL], 1))
    assert started(tmp_path, ("disable", [CAROL])).every == {ALICE: 1, BOB: 7}
    assert started(tmp_path, ("disable", None)).every == {}
    assert started(tmp_path).every == {}


def test_everyone(tmp_path: Path) -> None:
    """As a user of that name would be; who is logged by name besides stays so."""
    started(tmp_path, ("enable", None, 13), ("enable", [ALICE, BOB], 1), ("disable", [BOB]))
    assert started(tmp_path).every == {NOBODY_UID: 13, ALICE: 1}
    started(tmp_path, ("enable", None, 1))
    assert started(tmp_path).every == {NOBODY_UID: 1, ALICE: 1}


def test_what_fails_is_not_remembered(tmp_path: Path) -> None:
    """Whoever was told that it failed does not find it on later."""
    with pytest.raises(Unavailable):
        started(tmp_path, ("enable", [ALICE], 1), broken=ALICE)
    with pytest.raises(NotFound):
        started(tmp_path, ("disable", [ALICE]))

    assert started(tmp_path).every == {}


def test_what_is_not_possible_now_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The daemon starts without it and says so; the next start tries again."""
    started(tmp_path, ("enable", [ALICE], 3))

    assert started(tmp_path, broken=ALICE).every == {}
    assert "user 1000, switched on by hand, stays off: no room" in caplog.text
    assert started(tmp_path).every == {ALICE: 3}


@pytest.mark.parametrize(
    "content", ["", "[7]", '{"alice": 1}', '{"1000": 0}', '{"-1": 1}', '{"4294967296": 1}', "\0"]
)
def test_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str) -> None:
    """A file that is no good costs what it said, and a warning; the next change replaces it."""
    (tmp_path / byhand.FILE).write_text(content)

    assert started(tmp_path, ("enable", [ALICE], 1)).every == {ALICE: 1}
    assert "switched on by hand are off" in caplog.text
    assert json.loads((tmp_path / byhand.FILE).read_text()) == {"1000": 1}


def test_disk_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is switched all the same, and the administrator learns that it will not last."""
    caplog.set_level(logging.WARNING)
    away = tmp_path / "nowhere"

    assert started(away, ("enable", [ALICE], 1)).every == {ALICE: 1}
    assert "cannot write" in caplog.text
    with pytest.raises(NetmondError):
        byhand.save(away / byhand.FILE, {ALICE: 1})


def test_no_link_is_followed(tmp_path: Path) -> None:
    """Neither when reading nor when writing."""
    (tmp_path / "elsewhere").write_text('{"1000": 1}')
    (tmp_path / byhand.FILE).symlink_to(tmp_path / "elsewhere")
    (tmp_path / byhand.FILE).with_suffix(".new").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(NetmondError):
        byhand.load(tmp_path / byhand.FILE)
    with pytest.raises(NetmondError):
        byhand.save(tmp_path / byhand.FILE, {})
    assert (tmp_path / "elsewhere").read_text() == '{"1000": 1}'
