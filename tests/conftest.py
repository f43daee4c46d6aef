"""Rules for all tiers: Ctrl-C works; under CI each test passes. One that was skipped proved nothing, and one
that is expected to fail proves the wrong thing."""

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


def _demand_pass(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Under CI a test that was skipped, or marked as one that may fail, has failed."""
    if not _CI or report.failed:
        return
    if hasattr(report, "wasxfail"):
        verdict = f"expected to fail, which CI does not allow: {report.wasxfail}"
        del report.wasxfail  # or pytest would not count it
    elif report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        verdict = f"skipped, which CI does not allow: {reason}"
    else:
        return
    report.outcome = "failed"
    report.longrepr = verdict


@pytest.hookimpl(hookwrapper=True, tryfirst=True)  # type: ignore[misc] # pluggy has no types
def pytest_runtest_makereport() -> Iterator[None]:
    """Makes a test a failed one that did not just pass."""
    outcome: Any = yield
    _demand_pass(outcome.get_result())


@pytest.hookimpl(hookwrapper=True, tryfirst=True)  # type: ignore[misc] # pluggy has no types
def pytest_make_collect_report() -> Iterator[None]:
    """Makes a module that skips itself a failed one."""
    outcome: Any = yield
    _demand_pass(outcome.get_result())
