"""Runs pytest inside the machine: `python3 -P /opt/netmond/tests/service/run.py [pytest arguments]`.

The tests import their helpers from /opt/netmond, and netmond, if at all, as the package has installed it:
the source tree comes last on the path (-P keeps it from coming first).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    """The exit status of pytest."""
    if not Path("/opt/apt/Packages").is_file():
        sys.exit("these tests install and remove packages: they run in a machine made for them only")
    sys.path.append(str(ROOT))
    import pytest

    os.environ["NETMOND_TEST_MACHINE"] = "1"
    os.chdir(ROOT)
    # Whoever has waited that long for an event will never see it. Emulated machines are slower.
    timeout = 300 * float(os.environ.get("NETMOND_SLOWNESS", "1"))
    options = ["-p", "no:cacheprovider", f"--timeout={timeout}", "--override-ini=testpaths=tests/service"]
    return pytest.main([*options, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
