"""What tests share: a time zone; generated ones have the same examples each time and may take their time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.unit.receiver import Receiver

settings.register_profile(
    "netmond", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("netmond")

os.environ["TZ"] = "UTC"
time.tzset()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A web server at a free port of loopback."""
    with Receiver().serving() as receiver:
        yield receiver
