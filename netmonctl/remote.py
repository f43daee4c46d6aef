"""The same command on another machine, over ssh."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence

from netmonctl.errors import CtlError, ExitCode, usage

SSH_FAILED = 255


def command(host: str, argv: Sequence[str], terminal: bool) -> list[str]:
    """The ssh command; the far shell sees every argument quoted, ssh sees no option in the host."""
    if not host or host.startswith("-") or not host.isprintable() or " " in host:
        raise usage(f"{host!r} is not a host name")
    words = shlex.join(["netmonctl", *argv])
    return ["ssh", *(["-t"] if terminal else []), "--", host, words]


def run(host: str, argv: Sequence[str], terminal: bool) -> int:
    """The far netmonctl's exit code."""
    try:
        code = subprocess.call(command(host, argv, terminal))
    except FileNotFoundError:
        raise CtlError("--host needs ssh, which is not installed; install openssh-client") from None
    return ExitCode.FAILURE if code == SSH_FAILED else code
