"""A throw-away machine: a file tree booted by systemd-nspawn, on hosts with systemd and without.

Nothing stays behind, however this process ends. The tree is never written to: an overlay on a tmpfs takes
all changes, in a mount namespace of this process. /sys/fs/bpf is a new one, so pins go neither in nor out.
A process of its own waits for the end of this one, kills what is left and removes the control groups.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from tests.kernel.deadline import eventually
from tests.service.cache import CACHE

_BOOT = 120.0  #: seconds
_CLONE_NEWNS = 0x00020000

#: Waits for its standard input to be closed, which happens when our process ends; then ends what is left in
#: the control groups given, and removes them.
_CLEAN_UP = """
cat
for i in $(seq 200); do
    left=
    for group; do
        [ -d "$group" ] || continue
        find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null | xargs --no-run-if-empty kill -KILL
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || left=1
    done
    [ "$left" ] || exit 0
    sleep 0.05
done
"""

#: Puts itself into a control group of the machine, as nsenter(1) has stayed in that of the host.
_IN_A_CGROUP = """
group=/sys/fs/cgroup/system.slice/netmond-tests.service
mkdir -p $group && echo $$ >$group/cgroup.procs && exec "$@"
"""

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def scratch() -> Path:
    """A directory in memory that goes with this process, in a mount namespace that it gets for itself."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        sys.exit(f"cannot make a mount namespace: {os.strerror(ctypes.get_errno())}")
    directory = CACHE / "scratch"
    directory.mkdir(exist_ok=True)
    _run("mount", "--make-rprivate", "/")
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "netmond-tests", str(directory))
    return directory


class Machine:
    """A booted machine; leaving the block ends it.

    `binds` are directories shown read-only in it, `work` is where scratch() is.
    """

    def __init__(self, tree: Path, binds: Mapping[str, Path], work: Path) -> None:
        self.name = f"netmond-test-{os.getpid()}"
        self._tree = tree
        self._binds = binds
        self._work = work
        self._leader = 0
        self._console: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 # closed by _end()
        #: On a host with systemd those are that of a scope, which systemd makes.
        group = f"system.slice/{self.name}.scope" if _has_systemd() else self.name
        self._cgroups = [root / group for root in _cgroup_roots()]
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._cleaner: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Machine:
        """Boots; SystemExit with the last lines of its console if that fails."""
        try:
            self._start_cleaner()
            root, bpffs = self._mount()
            self._nspawn = subprocess.Popen(
                self._command(root, bpffs),
                stdin=subprocess.DEVNULL,
                stdout=self._console,
                stderr=subprocess.STDOUT,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                start_new_session=True,  # Ctrl-C is for the tests inside
                preexec_fn=self._enter_cgroups,
            )
            nspawn = self._nspawn
            self._leader = eventually(lambda: self._first_process(nspawn), "it boots", within=_BOOT)
            state = eventually(self._state, "it has booted", within=_BOOT)
            if state != "running":
                self._give_up(f"state {state!r}\n" + self._output("systemctl", "--failed", "--no-pager"))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def run(self, argv: Sequence[str], *, cwd: str = "/", environment: Mapping[str, str]) -> int:
        """Runs a command as root, with our standard streams; its exit status."""
        settings = [_PATH, *(f"{name}={value}" for name, value in environment.items())]
        words = ["sh", "-c", _IN_A_CGROUP, "sh", "env", "-i", f"--chdir={cwd}", *settings, *argv]
        return subprocess.run(self._inside(words)).returncode

    # -- the parts of booting ----------------------------------------------------------------------------

    def _start_cleaner(self) -> None:
        self._cleaner = subprocess.Popen(
            ["sh", "-c", _CLEAN_UP, "sh", *map(str, self._cgroups)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is not for it
        )

    def _enter_cgroups(self) -> None:
        """nspawn makes two groups below the one it is started in: each machine needs one of its own."""
        if not _has_systemd():
            for group in self._cgroups:
                group.mkdir()
                (group / "cgroup.procs").write_text("0")

    def _mount(self) -> tuple[Path, Path]:
        """Makes the root directory and the bpf file system."""
        upper, work, root, bpffs = (self._work / name for name in ("upper", "work", "root", "bpf"))
        for directory in (upper, work, root, bpffs):
            directory.mkdir(mode=0o755)
        layers = f"lowerdir={self._tree},upperdir={upper},workdir={work}"
        _run("mount", "-t", "overlay", "-o", layers, "netmond-tests", str(root))
        _run("mount", "-t", "bpf", "-o", "mode=0700,nosuid,nodev,noexec", "bpf", str(bpffs))
        return root, bpffs

    def _command(self, root: Path, bpffs: Path) -> list[str]:
        before: list[str] = []
        if _has_systemd():
            before += ["systemd-run", "--quiet", "--scope", "--collect", f"--unit={self.name}"]
            before += ["--property=Delegate=yes", "--"]
        return [
            *before,
            "systemd-nspawn",
            "--boot",
            "--quiet",
            f"--directory={root}",
            f"--machine={self.name}",
            "--register=no",
            "--keep-unit",
            "--private-network",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            "--capability=all",
            "--system-call-filter=bpf perf_event_open",
            "--suppress-sync=yes",
            "--console=pipe",
            f"--bind={bpffs}:/sys/fs/bpf",
            *(f"--bind-ro={source}:{target}" for target, source in self._binds.items()),
        ]

    def _first_process(self, nspawn: subprocess.Popen[bytes]) -> int:
        """The pid of its systemd, once that answers; else 0."""
        if nspawn.poll() is not None:
            self._give_up("systemd-nspawn has ended")
        pid = nspawn.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if _is_first(child) and Path(f"/proc/{child}/root/run/systemd/private").is_socket():
                return int(child)
        return 0

    def _state(self) -> str:
        """What its systemd says once it has booted; empty as long as it is too busy to say anything."""
        said = self._output("systemctl", "is-system-running", "--wait").strip()
        return "" if said == "unknown" else said

    def _give_up(self, what: str) -> None:
        self._console.seek(0)
        said = self._console.read().decode(errors="replace")[-4000:]
        sys.exit(f"the machine did not boot: {what}\n{said}")

    def _inside(self, argv: Sequence[str]) -> list[str]:
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        return ["nsenter", f"--target={self._leader}", *spaces, "--", *argv]

    def _output(self, *argv: str) -> str:
        return subprocess.run(self._inside(argv), stdout=subprocess.PIPE, text=True, timeout=_BOOT).stdout

    def _end(self) -> None:
        """At once: nothing in the machine is worth an orderly halt."""
        if self._leader:
            with suppress(ProcessLookupError):
                os.kill(self._leader, signal.SIGKILL)
        elif self._nspawn:
            self._nspawn.kill()
        if self._nspawn:
            self._nspawn.wait()
        if self._cleaner:
            self._cleaner.communicate()  # closes its standard input
        self._console.close()


def _has_systemd() -> bool:
    """Whether the host's first process is systemd (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def _cgroup_roots() -> list[Path]:
    """Where the hierarchies are mounted that nspawn uses: cgroup2, and systemd's own of cgroup v1."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, directory, kind, options, *_ = line.split()
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(directory))
    return found


def _is_first(pid: str) -> bool:
    """Whether a process is the first one of its pid namespace (proc(5)): nspawn also has helpers, which see
    the files of the host."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has ended
        return False
    (numbers,) = [line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")]
    return numbers[-1] == "1"


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)
