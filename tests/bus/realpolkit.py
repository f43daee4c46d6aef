"""The machine's own polkitd on a private bus, with our actions and a test's rules, in a mount namespace.

polkitd needs no systemd: without logind every caller counts as one without a session ("any").
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.bus.private import DEADLINE, ROOT, PrivateBus, unavailable

POLKITD = "/usr/lib/polkit-1/polkitd"
POLICY = ROOT / "packaging" / "polkit" / "org.netmond1.policy"

#: Where polkit's setuid helper looks for the system bus: it believes no environment.
_BUS = "/run/dbus"

_SCRIPT = """
set -e
mount --bind {home}/actions /usr/share/polkit-1/actions
mount --bind {home}/rules /etc/polkit-1/rules.d
mount --bind {home}/pam /etc/pam.d
mount --bind {bus} {dbus}
exec "$@"
"""


class RealPolkit:
    """polkitd, and programs that share its view of the file system."""

    def __init__(self, bus: PrivateBus, rules: str, policy: str) -> None:
        """`policy` is the text of the actions; `rules` is JavaScript, see polkit(8)."""
        if os.geteuid() != 0:
            unavailable("polkitd needs root")
        if not Path(POLKITD).exists() or shutil.which("pkttyagent") is None:
            unavailable("needs polkitd (Debian package polkitd)")
        self._bus = bus
        self._home = Path(tempfile.mkdtemp(prefix="netmond-polkit-"))
        self._home.chmod(0o755)
        for name, file, text in (("actions", "org.netmond1.policy", policy), ("rules", "10.rules", rules)):
            (self._home / name).mkdir()
            (self._home / name / file).write_text(text)
        (self._home / "pam").mkdir()
        self.authenticate(True)
        self._process: subprocess.Popen[str] | None = None

    def authenticate(self, succeeds: bool) -> None:
        """What becomes of every attempt to authenticate; no password is asked for."""
        module = "pam_permit.so" if succeeds else "pam_deny.so"
        (self._home / "pam" / "polkit-1").write_text(f"auth required {module}\naccount required {module}\n")

    def command(self, *command: str) -> list[str]:
        """`command` in the same view."""
        script = _SCRIPT.format(home=self._home, bus=self._bus.directory, dbus=_BUS)
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *command]

    def environment(self) -> dict[str, str]:
        """With the private bus for the system's, and without a session."""
        inherited = {key: value for key, value in os.environ.items() if key != "XDG_SESSION_ID"}
        return inherited | {"DBUS_SYSTEM_BUS_ADDRESS": self._bus.address}

    def start(self) -> None:
        """Start polkitd and wait until it has its name."""
        self._process = subprocess.Popen(
            self.command(POLKITD), env=self.environment(), stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "Acquired the name" in line:
                return
        raise AssertionError("polkitd ended")

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None and self._process.stdout is not None:
            self._process.kill()
            self._process.wait(DEADLINE)
            self._process.stdout.close()
        self._process = None

    def remove(self) -> None:
        """Kill it and leave nothing behind."""
        self.stop()
        shutil.rmtree(self._home)
