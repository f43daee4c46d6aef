"""The caps of the CSV files, with thousands of users and with others who change files."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from netmond.outputs import caps, rotated
from tests.unit.csvflows import ALICE, BOB, START, path_of
from tests.unit.csvlogs import append, files, in_memory, logs, numbers, used

USERS = range(2000, 7000)


def test_thousands_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """All together stay below the cap, the oldest files go, and a rotation looks at few directories."""
    looked: list[int] = []
    really_list = rotated.listing

    def listing(directory: int, uid: int) -> tuple[int, list[rotated.Rotated]]:
        if threading.current_thread() is threading.main_thread():
            looked.append(uid)
        return really_list(directory, uid)

    cap = len(USERS) * 4300
    with in_memory() as log_dir, logs(log_dir, rotate_size=4096, keep_total=cap) as written:
        for _ in range(2):
            for uid in USERS:
                append(written, 40, uid)
        assert written.compressor.settle(120)
        written.check()
        assert used(log_dir) <= cap
        kept = [uid for uid in USERS if len(files(log_dir, uid)) == 2]
        assert kept == list(USERS)[-len(kept) :]
        assert 0 < len(kept) < len(USERS)

        monkeypatch.setattr(rotated, "listing", listing)
        monkeypatch.setattr(caps, "SCAN", 1e9)
        append(written, 40, USERS[-1])
        assert written.compressor.settle(60)
        written.check()
        assert USERS[-1] in looked
        assert len(looked) < 10
        assert written.lost_rows == 0


def test_files_removed_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an administrator deleted does not count any more: nothing else is deleted for it."""
    with logs(tmp_path, rotate_size=4096, keep_total=14000) as written:
        for _ in range(9):
            append(written, 40)
        append(written, 40, BOB)
        append(written, 40, BOB)
        assert written.compressor.settle(60)
        written.check()
        for file in files(tmp_path)[:-1]:
            file.unlink()
        path_of(tmp_path).write_bytes(b"")
        monkeypatch.setattr(caps, "SCAN", 0.0)
        for _ in range(2):
            append(written, 40, BOB)
            assert written.compressor.settle(60)
        written.check()

        assert numbers(tmp_path, BOB) == list(range(1, 161))


def test_files_of_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that somebody else makes count, too, and the oldest of all go first."""
    monkeypatch.setattr(caps, "SCAN", 0.0)
    with logs(tmp_path, rotate_size=4096, keep_total=60000) as written:
        append(written, 40)
        append(written, 40, BOB)
        old = [
            path_of(tmp_path, uid).with_name(f"{path_of(tmp_path, uid).name}-2026112{day}T010000Z.gz")
            for day, uid in enumerate((BOB, ALICE, BOB, ALICE))
        ]
        for file in old:
            file.write_bytes(bytes(20000))
        written.check()

        assert [file.exists() for file in old] == [False, False, True, True]


def test_after_a_kill(tmp_path: Path) -> None:
    """The next start knows of all files there are."""
    with logs(tmp_path, rotate_size=4096) as written:
        for _ in range(31):
            append(written, 40)
        assert written.compressor.settle(60)
        before = used(tmp_path)
        with logs(tmp_path, keep_total=before // 2) as again:
            again.clean_up(START)
            assert used(tmp_path) <= before // 2
