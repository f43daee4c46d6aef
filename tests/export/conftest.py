"""Fixtures of all tests against real peers."""

from __future__ import annotations

import pytest

from tests.export.peers import patience


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    patience(monkeypatch)
