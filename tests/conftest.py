"""Rules for all tiers: Ctrl-C works; under CI nothing is skipped, since what did not run proved nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

_CI = os.environ.get("CI") == "true"


def pytest_configure() -> None:
    """Neither tests nor what they start ignore Ctrl-C, also if a shell runs them in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not _CI or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"skipped, which CI does not allow: {reason}"


@pytest.hookimpl(hookwrapper=True, tryfirst=True)  # type: ignore[misc] # pluggy has no types
def pytest_runtest_makereport() -> Iterator[None]:
    """Makes a skipped test a failed one."""
    outcome: Any = yield
    _forbid_skip(outcome.get_result())


@pytest.hookimpl(hookwrapper=True, tryfirst=True)  # type: ignore[misc] # pluggy has no types
def pytest_make_collect_report() -> Iterator[None]:
    """Makes a module that skips itself a failed one."""
    outcome: Any = yield
    _forbid_skip(outcome.get_result())
