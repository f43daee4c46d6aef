"""Boots a minimal Debian with systemd and runs the service tests in it: see --help.

Needs root, systemd-nspawn, mmdebstrap and the packages under test; on the first run also a Debian mirror.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.service.nspawn import Machine, scratch
from tests.service.prerequisites import packages_in, require_tools
from tests.service.repository import debian_packages, make_newer, make_repository
from tests.service.tree import base_tree

ROOT = Path(__file__).parents[2]

_TOOLS = ("apt-get", "dpkg-deb", "mmdebstrap", "mount", "nsenter", "setpriv", "systemd-nspawn")
_RUN = ["python3", "-P", "/opt/netmond/tests/service/run.py"]


def main() -> int:
    """The exit status of pytest, or of the shell."""
    arguments, for_pytest = _arguments()
    require_tools(_TOOLS, "test-service")
    debs = packages_in(arguments.debs)
    tree = base_tree()
    debian = debian_packages(debs, tree)
    work = scratch()
    make_repository(work / "apt", debs, tree)
    make_newer(work / "newer", debs)
    binds = {
        "/opt/netmond": ROOT,
        "/opt/apt": work / "apt",
        "/opt/newer": work / "newer",
        "/opt/debian": debian,
    }
    environment = {name: os.environ[name] for name in ("CI", "TERM") if name in os.environ}
    with Machine(tree, binds, work) as machine:
        status = 0
        if not arguments.only_shell:
            status = machine.run([*_RUN, *for_pytest], environment=environment)
        if arguments.shell or arguments.only_shell:
            print("A shell in the machine; its end is the machine's.", flush=True)
            status = machine.run(["bash", "-i"], cwd="/opt/netmond", environment=environment) or status
    return status


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.service.container",
        description="Runs the service tests in a throw-away Debian. Other arguments are for pytest.",
    )
    parser.add_argument("--debs", type=Path, default=ROOT / "build/deb", help="directory of the packages")
    parser.add_argument("--shell", action="store_true", help="a shell in the machine after the tests")
    parser.add_argument("--only-shell", action="store_true", help="a shell in the machine and no tests")
    return parser.parse_known_args()


if __name__ == "__main__":
    sys.exit(main())
