"""What the tests share: generated ones have the same examples each time and no limit of time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.unit.receiver import Receiver

settings.register_profile("netmond", derandomize=True, database=None, deadline=None)
settings.load_profile("netmond")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A web server at a free port of loopback."""
    with Receiver().serving() as receiver:
        yield receiver
