"""The machine's own polkitd on a private bus, with our actions and a test's rules, in a mount namespace.

polkitd needs no systemd: without logind every caller counts as one without a session ("any").
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.bus.background import Background
from tests.bus.private import ROOT, PrivateBus, unavailable

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


class RealPolkit(Background):
    """polkitd, and programs that share its view of the file system."""

    def __init__(self, bus: PrivateBus, rules: str, policy: str) -> None:
        """`policy` is the text of the actions; `rules` is JavaScript, see polkit(8)."""
        if os.geteuid() != 0:
            unavailable("polkitd needs root")
        if not Path(POLKITD).exists() or shutil.which("pkttyagent") is None:
            unavailable("needs polkitd (Debian package polkitd)")
        super().__init__("netmond-polkit-")
        self._bus = bus
        for name, file, text in (("actions", "org.netmond1.policy", policy), ("rules", "10.rules", rules)):
            (self.directory / name).mkdir()
            (self.directory / name / file).write_text(text)
        (self.directory / "pam").mkdir()
        self.authenticate(True)

    def authenticate(self, succeeds: bool) -> None:
        """What becomes of every attempt to authenticate; no password is asked for."""
        module = "pam_permit.so" if succeeds else "pam_deny.so"
        text = f"auth required {module}\naccount required {module}\n"
        (self.directory / "pam" / "polkit-1").write_text(text)

    def command(self, *command: str) -> list[str]:
        """`command` in the same view."""
        script = _SCRIPT.format(home=self.directory, bus=self._bus.directory, dbus=_BUS)
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *command]

    def environment(self) -> dict[str, str]:
        """With the private bus for the system's, and without a session."""
        inherited = {key: value for key, value in os.environ.items() if key != "XDG_SESSION_ID"}
        return inherited | {"DBUS_SYSTEM_BUS_ADDRESS": self._bus.address}

    def start(self) -> None:
        """Start polkitd and wait until it has its name."""
        self.launch(self.command(POLKITD), "Acquired the name", self.environment())
