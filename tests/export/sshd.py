"""A real sshd on a loopback port, and a client that knows only its hosts."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.bus.private import ROOT
from tests.export.nfdump import need
from tests.export.peers import free_port
from tests.kernel.deadline import DEADLINE, eventually

#: The directory that sshd gives its unprivileged part as root; the package's service makes it, too.
_EMPTY = Path("/run/sshd")


class Sshd:
    """While the context lasts, the host ``far`` has a netmonctl; ``gone`` does not answer."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        """environment: what is different on the far machine."""
        need("sshd", "openssh-server")
        self._directory = directory
        self._port = free_port()
        self._log = directory / "sshd.log"
        self._commands = directory / "commands"
        self._commands.mkdir(parents=True)
        netmonctl = shlex.join(["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "netmonctl"])
        self._script("far/netmonctl", f'exec {netmonctl} "$@"')
        self._script("near/ssh", f'exec /usr/bin/ssh -F {self._write_ssh_config()} "$@"')
        far = {"PATH": f"{self._commands}/far:{os.environ['PATH']}", **environment}
        self._config = self._write_sshd_config(far)

    @property
    def path(self) -> str:
        """The PATH with which ssh finds the host."""
        return f"{self._commands}/near:{os.environ['PATH']}"

    def __enter__(self) -> Sshd:
        for name in ("host_key", "user_key"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{self._directory / name}"]
            subprocess.run(argv, check=True)
        host_key = (self._directory / "host_key.pub").read_text()
        (self._directory / "known_hosts").write_text(f"[127.0.0.1]:{self._port} {host_key}")
        _EMPTY.mkdir(mode=0o755, exist_ok=True)
        argv = ["/usr/sbin/sshd", "-D", "-e", "-f", f"{self._config}"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        eventually(lambda: "listening" in self._log.read_text() or self._process.poll() is not None)
        assert self._process.poll() is None, self._log.read_text()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(DEADLINE)

    def _script(self, name: str, line: str) -> None:
        path = self._commands / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def _write_ssh_config(self) -> Path:
        path = self._directory / "ssh_config"
        path.write_text(
            f"""Host gone
            Port 1
            Host far
            Port {self._port}
            Host *
            HostName 127.0.0.1
            IdentityFile {self._directory}/user_key
            IdentitiesOnly yes
            UserKnownHostsFile {self._directory}/known_hosts
            StrictHostKeyChecking yes
            BatchMode yes
            LogLevel ERROR
            """
        )
        return path

    def _write_sshd_config(self, environment: Mapping[str, str]) -> Path:
        path = self._directory / "sshd_config"
        variables = " ".join(f'"{name}={value}"' for name, value in environment.items())
        path.write_text(
            f"""ListenAddress 127.0.0.1:{self._port}
            HostKey {self._directory}/host_key
            AuthorizedKeysFile {self._directory}/user_key.pub
            PidFile none
            PermitRootLogin yes
            StrictModes no
            UsePAM no
            SetEnv {variables}
            """
        )
        return path
