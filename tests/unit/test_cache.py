"""The service tests' cache: made once, kept while it is used."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service import cache

DAY = 24 * 3600

Ask = Callable[[str, str], Path]


@pytest.fixture
def made() -> list[str]:
    """The inputs of what was made, in that order."""
    return []


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: list[str]) -> Ask:
    """Asks an empty cache for an entry of a kind, with some inputs."""
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")

    def cached(kind: str, inputs: str) -> Path:
        def make(directory: Path) -> None:
            made.append(inputs)
            (directory / "file").write_text(inputs)

        return cache.cached(kind, inputs, make)

    return cached


def unused_for(entry: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(entry, (then, then))


def test_made_once(ask: Ask, made: list[str]) -> None:
    """The same inputs have the same directory, which is filled only once; others have another."""
    first, again, other = ask("tree", "1"), ask("tree", "1"), ask("tree", "2")

    assert first == again != other
    assert [(entry / "file").read_text() for entry in (first, other)] == ["1", "2"]
    assert made == ["1", "2"]


def test_half_made(ask: Ask, made: list[str]) -> None:
    """What a killed run has begun is made again from nothing."""
    finished = ask("tree", "1")
    unfinished = finished.rename(f"{finished}.new")
    (unfinished / "rest").touch()

    assert [file.name for file in ask("tree", "1").iterdir()] == ["file"]
    assert made == ["1", "1"]


def test_unused(ask: Ask) -> None:
    """After a month without use, entries of the kind that is asked for go, also those never finished."""
    old, recent, other_kind = ask("tree", "1"), ask("tree", "2"), ask("vm", "1")
    unfinished = other_kind.with_name("tree-0.new")
    unfinished.mkdir()
    for entry, days in ((old, 31), (recent, 29), (other_kind, 31), (unfinished, 31)):
        unused_for(entry, days)

    new = ask("tree", "3")

    entries = {entry for entry in new.parent.iterdir() if entry.is_dir()}
    assert entries == {recent, other_kind, new}


def test_used(ask: Ask, made: list[str]) -> None:
    """What is asked for stays, however old; and then it is as good as new."""
    used = ask("tree", "1")
    unused_for(used, 31)

    assert ask("tree", "1") == used
    ask("tree", "2")

    assert used.is_dir()
    assert made == ["1", "2"]
