"""What the generated tests have in common: the same examples each time, and no limit of time."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("netmond", derandomize=True, database=None, deadline=None)
settings.load_profile("netmond")
