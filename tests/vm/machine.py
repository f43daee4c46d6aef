"""Boots Debian 12 with its own kernel under qemu, and runs the service tests: `python3 -m tests.vm.machine`.

Other arguments are for pytest; without any, tests/service, tests/vm and a part of tests/kernel are run.
Needs root, qemu, mmdebstrap and the packages under test; on the first run also a Debian mirror. Without
hardware virtualisation qemu emulates the processor, which is slow but not wrong.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.service.nspawn import scratch
from tests.service.prerequisites import packages_in, require_tools
from tests.service.repository import debian_packages, make_newer, make_repository
from tests.vm.image import Image, image

ROOT = Path(__file__).parents[2]

_TOOLS = ("cpio", "dpkg-deb", "mkfs.ext4", "mmdebstrap", "qemu-system-x86_64", "setpriv")
_RUN = "python3 -P /opt/netmond/tests/service/run.py"
#: Tests of the kernel tier that other kernels may have to leave out: see its conftest.py.
_OF_THIS_KERNEL = ["tests/kernel/test_books.py", "-k", "vlan or bond"]
_PATIENCE = 300  #: seconds for a test, on a real processor
#: As in a clone, with nothing that was made in it.
_NOT_SOURCE = (".git", ".venv", "build", "__pycache__", ".*_cache", ".hypothesis")
_TIME_IS_OVER, _NO_RESULT = 124, 125


@dataclass(frozen=True, slots=True)
class Processor:
    """How the machine computes."""

    options: tuple[str, ...]
    slowness: int  #: how much longer things may take than on a real processor


#: One thread for both processors: with two, qemu 7.2 misses that one patches the code that the other runs,
#: and the guest dies of it when probes are attached.
EMULATED = Processor(("-accel", "tcg,thread=single,tb-size=512", "-cpu", "Nehalem"), 15)
VIRTUAL = Processor(("-accel", "kvm", "-cpu", "host"), 1)


def main() -> int:
    """The exit status of pytest (or of the command); 124 when time is over, 125 if the machine breaks."""
    arguments, for_pytest = _arguments()
    require_tools(_TOOLS, "test-vm")
    debs = packages_in(arguments.debs)
    processor = _processor()
    run = f"{_RUN} --timeout={_PATIENCE * processor.slowness}"
    sessions = [for_pytest] if for_pytest else [["tests/service"], ["tests/vm"], _OF_THIS_KERNEL]
    command = arguments.command or "\n".join(
        ["status=0", *(f"{run} {shlex.join(words)} || status=$?" for words in sessions), "exit $status"]
    )
    environment = {
        **{name: os.environ[name] for name in ("CI", "TERM") if name in os.environ},
        "NETMOND_SLOWNESS": str(processor.slowness),
        "NETMOND_VM": "1",  # tests/vm may run
        "NETMOND_PREINSTALLED": "1",  # netmond's Debian dependencies are in the image
        "NETMOND_SHELL": "1" if arguments.shell else "",
    }
    made = image()
    work = scratch()
    cargo = _make_cargo(work, debs, made.tree, command, environment)
    return _run(work, made, cargo, processor, arguments)


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.vm.machine",
        description="Runs the service tests on Debian's own kernel. Other arguments are for pytest.",
    )
    parser.add_argument("--debs", type=Path, default=ROOT / "build/deb", help="directory of the packages")
    parser.add_argument("--timeout", type=float, default=5400, metavar="SECONDS", help="for everything")
    parser.add_argument("--verbose", action="store_true", help="the machine's console on standard error")
    parser.add_argument(
        "--command", metavar="TEXT", help="run this with bash, as root, instead of the tests"
    )
    parser.add_argument("--shell", action="store_true", help="a shell in the machine afterwards")
    return parser.parse_known_args()


def _processor() -> Processor:
    """The fastest there is. /dev/kvm is of no use if this machine is itself one without these flags."""
    flags = re.search(r"^flags\s.*\b(vmx|svm)\b", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return VIRTUAL if flags and os.access("/dev/kvm", os.R_OK | os.W_OK) else EMULATED


def _make_cargo(
    work: Path, debs: Sequence[Path], tree: Path, command: str, environment: Mapping[str, str]
) -> Path:
    """The disk that the machine has at /opt: this source tree, packages old and new, and what to do."""
    opt = work / "opt"
    opt.mkdir(mode=0o755)
    shutil.copytree(ROOT, opt / "netmond", symlinks=True, ignore=shutil.ignore_patterns(*_NOT_SOURCE))
    make_repository(opt / "apt", debs, tree)
    shutil.copytree(debian_packages(debs, tree), opt / "debian")
    make_newer(opt / "newer", debs)
    job = opt / "job"
    job.mkdir()
    shutil.copy(Path(__file__).with_name("agent.sh"), job / "agent")
    (job / "command").write_text(f"{command}\n")
    exports = (f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    (job / "environment").write_text("".join(exports))
    disk = work / "cargo"
    subprocess.run(
        ["mkfs.ext4", "-q", "-O", "^has_journal", "-E", "root_owner=0:0", "-d", opt, disk, "1G"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shutil.rmtree(opt)
    return disk


def _run(work: Path, made: Image, cargo: Path, processor: Processor, arguments: argparse.Namespace) -> int:
    """Boots, lets the machine's output pass, and waits for its end; the exit status."""
    console, result = work / "console", work / "result"
    result.touch()
    if arguments.shell:
        channels = ["-serial", "stdio", "-chardev", "null,id=output"]
    else:
        serial = "/dev/stderr" if arguments.verbose else console
        channels = ["-serial", f"file:{serial}", "-chardev", "stdio,id=output,signal=off"]
    command = [
        "setpriv", "--pdeathsig", "KILL", "--",
        "qemu-system-x86_64", "-M", "pc,usb=off,vmport=off", *processor.options, "-smp", "2", "-m", "2048",
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none",
        "-kernel", str(made.kernel), "-initrd", str(made.initrd),
        "-append", "root=/dev/vda console=ttyS0 quiet loglevel=4 systemd.show_status=0 mitigations=off"
        " tsc=reliable panic=-1",
        # What the machine writes to its disks goes to files of qemu's that have no name.
        "-drive", f"file={made.disk},format=raw,if=virtio,snapshot=on,cache=unsafe",
        "-drive", f"file={cargo},format=raw,if=virtio,snapshot=on,cache=unsafe",
        "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
        *channels, "-device", "virtserialport,chardev=output,name=org.host.output",
        "-chardev", f"file,id=result,path={result}",
        "-device", "virtserialport,chardev=result,name=org.host.result",
    ]  # fmt: skip
    # At the end of its input qemu would close the port, so there is a pipe that nobody writes to.
    stdin = None if arguments.shell else subprocess.PIPE
    with subprocess.Popen(command, stdin=stdin, env={**os.environ, "TMPDIR": str(work)}) as qemu:
        try:
            qemu.wait(None if arguments.shell else arguments.timeout)
        except subprocess.TimeoutExpired:
            print(f"the machine's time is over ({arguments.timeout:g} s)", file=sys.stderr)
            return _TIME_IS_OVER
        finally:
            qemu.kill()
    if said := result.read_text().strip():
        return int(said)
    print("the machine ended without a result", file=sys.stderr)
    if console.exists():
        print(console.read_text(errors="replace")[-4000:], file=sys.stderr)
    return _NO_RESULT


if __name__ == "__main__":
    sys.exit(main())
