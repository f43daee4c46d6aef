"""The machine of these tests is that of the service tests, booted with Debian's own kernel."""

from __future__ import annotations

import os

from tests.service.conftest import far, installed, people, repository, talkers

__all__ = ["far", "installed", "people", "repository", "talkers"]


def pytest_ignore_collect() -> bool | None:
    """On other kernels these tests say nothing."""
    return None if "NETMOND_VM" in os.environ else True
