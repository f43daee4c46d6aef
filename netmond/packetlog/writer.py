"""Packets to the files of their users: whose packets are taken, what is written, and what is not told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.clock import wall_offset
from netmond.kernel import wire
from netmond.model import NOBODY_UID
from netmond.outputs.comments import comment
from netmond.outputs.logs import Logs
from netmond.packetlog import rows

_GAP_WORDS = len(wire.GAP.names or ())
#: What is missing, in the order of wire.UNLOGGED.
_MISSING = wire.UNLOGGED.names or ()

Pair = tuple[int, int]


@dataclass(slots=True, kw_only=True)
class Account:
    """One user's log. It goes to the daemon as JSON, and comes back when the worker was started again."""

    every: int  #: one of so many packets is logged
    named: bool = True  #: on its own, not because everyone is logged
    since: int = 0  #: packets up to then are in earlier rows; ns, monotonic
    told: list[int] = field(default_factory=lambda: [0] * len(_MISSING) * _GAP_WORDS)  #: of wire.UNLOGGED
    told_at: int = 0  #: Unix time in ns
    rows: int = 0
    lost_packets: int = 0
    lost_bytes: int = 0
    #: rows, packets, bytes in and out that could not be written, and since when (Unix time in ns)
    unwritten: list[int] = field(default_factory=lambda: [0] * 5)
    totals: Pair | None = None  #: bytes in and out, all of the above included; None: as the file tells
    ahead: Pair = (0, 0)  #: bytes of packets that come again and are in the file already


class Writer:
    """Takes packets in the order of the ring. Nothing here raises for what the file system does."""

    def __init__(
        self,
        logs: Logs,
        owners: rows.Owners,
        *,
        offset: Callable[[], int] = wall_offset,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """offset: from the packets' clock to that of the wall; clock: that of the wall, in ns."""
        self.accounts: dict[int, Account] = {}
        self.changed: set[int] = set()  #: users whose accounts have changed since somebody emptied it
        self._logs = logs
        self._owners = owners
        self._offset = offset
        self._clock = clock
        self._expected: set[int] = set()
        self._everyone: Account | None = None  # a pattern
        self._missing_before: dict[int, list[int]] = {}  # told of users who have no account yet

    # -- whose packets -------------------------------------------------------------------------------

    def expect(self, users: Iterable[int]) -> None:
        """Packets of these users have to wait until `begin`."""
        self._expected |= set(users)

    def forget(self, users: Iterable[int] | None = None) -> None:
        """They need not, and are not taken; None: nobody's."""
        self._expected -= self._expected if users is None else set(users)

    def begin(self, uid: int, account: Account, missing: dict[int, list[int]] | None = None) -> None:
        """Take packets of a user; NOBODY_UID: of everyone.

        missing: what is told of users already, of wire.UNLOGGED, for those who have no account yet.
        """
        self._expected.discard(uid)
        self._account(uid)  # who is logged because everyone is goes on
        if uid == NOBODY_UID:
            self._everyone, self._missing_before = account, missing or {}
            for other in [each for each, found in self.accounts.items() if not found.named]:
                self._change(other, account.every)
        elif uid in self.accounts:
            self.accounts[uid].named = account.named
            self._change(uid, account.every)
        else:
            self._open(uid, account)

    def finish(self, users: Iterable[int]) -> None:
        """Take no more packets of these users, and leave their files."""
        users = set(users)
        if NOBODY_UID in users:
            self._everyone = None
            users |= {uid for uid, account in self.accounts.items() if not account.named}
        for uid in users & self.accounts.keys():
            del self.accounts[uid]
            self._logs.release(uid)

    def _change(self, uid: int, every: int) -> None:
        if self.accounts[uid].every != every:
            self.accounts[uid].every = every
            self._say(uid, self._mode(every))

    # -- packets -------------------------------------------------------------------------------------

    def write(self, records: NDArray[Any]) -> int:
        """Write packets (wire.PACKET), as many as need not wait; returns how many those are."""
        taken = self._may_take(records["uid"])
        if taken:
            self._write(*self._wanted(*rows.by_user(records[:taken])))
        return taken

    def _may_take(self, uids: NDArray[np.uint32]) -> int:
        if not self._expected:
            return len(uids)
        if NOBODY_UID in self._expected:
            waits = ~np.isin(uids, list(self.accounts))
        else:
            waits = np.isin(uids, list(self._expected))
        return int(waits.argmax()) if waits.any() else len(uids)

    def _wanted(self, records: NDArray[Any], bounds: list[int]) -> tuple[NDArray[Any], list[int]]:
        """Without those that nobody asked for, or that are in the file already; sorted by user as before."""
        keep = np.ones(len(records), np.bool_)
        for begin, end in pairwise(bounds):
            account = self._account(int(records["uid"][begin]))
            mine = slice(begin, end)
            if account is None:
                keep[mine] = False
                continue
            if account.since:
                keep[mine] = records["time"][mine] > account.since
                if keep[end - 1]:
                    account.since = 0
            if account.ahead != (0, 0):
                keep[mine] &= ~_repeated(account, records[mine])
        if keep.all():
            return records, bounds
        records = records[keep]
        return rows.by_user(records) if len(records) else (records, [0])

    def _account(self, uid: int) -> Account | None:
        account = self.accounts.get(uid)
        if account is None and self._everyone is not None and uid != NOBODY_UID:
            pattern = self._everyone
            account = Account(every=pattern.every, named=False, since=pattern.since)
            account.told = self._missing_before.get(uid, account.told)
            self._open(uid, account)
        return account

    def _open(self, uid: int, account: Account) -> None:
        self.accounts[uid] = account
        self._logs.claim(uid)
        total_in, total_out = self._logs.totals(uid)
        again = account.totals is not None
        if account.totals is not None:
            lacking = account.unwritten[2:4]
            more_in = max(0, total_in + lacking[0] - account.totals[0])
            more_out = max(0, total_out + lacking[1] - account.totals[1])
            account.ahead = more_in, more_out
            self._logs.claim(uid, (account.totals[0] + more_in, account.totals[1] + more_out))
        account.totals = self._logs.totals(uid)
        account.told_at = account.told_at or self._clock()
        self.changed.add(uid)
        if not again:
            self._say(uid, self._mode(account.every))

    def _write(self, records: NDArray[Any], bounds: Sequence[int]) -> None:
        if not len(records):
            return
        users = records["uid"][bounds[:-1]].tolist()
        offset = self._offset()
        totals = [self._logs.totals(uid) for uid in users]
        for place, (uid, part) in enumerate(
            zip(users, rows.parts(records, bounds, totals, offset, self._owners), strict=True)
        ):
            account = self.accounts[uid]
            lost = self._append(uid, account, part.lines, part.rows, part.totals)
            if lost:
                _count_unwritten(account, records[bounds[place + 1] - lost : bounds[place + 1]], offset)
            account.rows += part.rows - lost

    def retry(self) -> None:
        """Try to write what could not be written, where nothing else is to be."""
        for uid, account in self.accounts.items():
            if any(account.unwritten):
                self._append(uid, account, b"", 0, self._logs.totals(uid))

    # -- what is not in the rows ---------------------------------------------------------------------

    def tell(self, users: NDArray[np.uint32], missing: NDArray[Any]) -> None:
        """Write what the kernel counts as missing (wire.UNLOGGED of some users) and was not told yet."""
        words = missing.view(np.uint64).reshape(-1, len(_MISSING), _GAP_WORDS).tolist()
        for uid, now in zip(users.tolist(), words, strict=True):
            flat = [*now[0], *now[1]]
            account = self.accounts.get(uid)
            if account is None and self._everyone is not None and flat != self._missing_before.get(uid):
                account = self._account(uid)
            if account is not None and flat != account.told:
                self._tell(uid, account, flat)

    def _tell(self, uid: int, account: Account, now: list[int]) -> None:
        since, account.told_at = account.told_at, self._clock()
        before, account.told = account.told, now
        for place, what in enumerate(_MISSING):
            part = slice(place * _GAP_WORDS, (place + 1) * _GAP_WORDS)
            in_packets, in_bytes, out_packets, out_bytes = (
                new - old for new, old in zip(now[part], before[part], strict=True)
            )
            if in_packets or out_packets:
                if what == "lost":
                    account.lost_packets += in_packets + out_packets
                    account.lost_bytes += in_bytes + out_bytes
                self._say(uid, f"{what}:", in_packets + out_packets, in_bytes, out_bytes, since)

    def _say(
        self, uid: int, what: str, packets: int = 0, in_bytes: int = 0, out_bytes: int = 0, since: int = 0
    ) -> None:
        """Write a comment; the totals advance by the bytes in it."""
        account = self.accounts[uid]
        total_in, total_out = self._logs.totals(uid)
        totals = total_in + in_bytes, total_out + out_bytes
        figures = _figures(packets, in_bytes, out_bytes, since) if packets else {}
        self._append(uid, account, comment(what, self._clock(), totals, **figures), 0, totals)
        if packets and self._logs.is_failing(uid):
            _add_unwritten(account, (0, packets, in_bytes, out_bytes), since)

    def _append(
        self, uid: int, account: Account, lines: bytes | memoryview, count: int, totals: Pair
    ) -> int:
        """Write lines, behind what could not be written before; returns how many rows were not."""
        before = self._logs.totals(uid)
        lacking, *figures = account.unwritten
        if any(figures):
            said = {"rows": lacking, **_figures(*figures)}
            lines = comment("not written:", self._clock(), before, **said) + bytes(lines)
        lost = self._logs.append(uid, lines, count, totals, self._clock() / 1e9)
        if not self._logs.is_failing(uid) or lost < count:
            account.unwritten = [0] * 5
        account.totals = totals
        self.changed.add(uid)
        return lost

    @staticmethod
    def _mode(every: int) -> str:
        return "packet mode: every packet" if every == 1 else f"packet mode: 1 of {every} packets"


def _repeated(account: Account, records: NDArray[Any]) -> NDArray[np.bool_]:
    """Which packets are in the file already: the first, up to what it has beyond the account."""
    size = records["bytes"].astype(np.int64)
    incoming = records["direction"] == wire.PACKET_IN
    sums_in, sums_out = (size * incoming).cumsum(), (size * ~incoming).cumsum()
    repeated: NDArray[np.bool_] = (sums_in <= account.ahead[0]) & (sums_out <= account.ahead[1])
    count = int(np.count_nonzero(repeated))
    if count:
        done = int(sums_in[count - 1]), int(sums_out[count - 1])
        account.ahead = account.ahead[0] - done[0], account.ahead[1] - done[1]
    if count < len(records):
        account.ahead = 0, 0
    return repeated


def _count_unwritten(account: Account, records: NDArray[Any], offset: int) -> None:
    size = records["bytes"].astype(np.int64)
    incoming = records["direction"] == wire.PACKET_IN
    packets = int(records["packets"].sum())
    received, sent = int(size[incoming].sum()), int(size[~incoming].sum())
    _add_unwritten(account, (len(records), packets, received, sent), int(records["time"][0]) + offset)
    account.lost_packets += packets
    account.lost_bytes += received + sent


def _add_unwritten(account: Account, figures: tuple[int, ...], since: int) -> None:
    for place, figure in enumerate(figures):
        account.unwritten[place] += figure
    account.unwritten[-1] = account.unwritten[-1] or since


def _figures(packets: int, in_bytes: int, out_bytes: int, since: int) -> dict[str, int]:
    return {"packets": packets, "in_bytes": in_bytes, "out_bytes": out_bytes, "since": since}
