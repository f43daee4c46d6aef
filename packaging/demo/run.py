"""What `make run` does: shows the figures of netmond on this machine, live.

They are the installed service's (--service), or those of a daemon on a private message bus with temporary
state, which needs no systemd and leaves nothing behind. On an idle machine it makes traffic of its own: in
namespaces of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

TREE = Path(__file__).resolve().parents[2]
IDLE = 20_000  # bytes a second below which there is not much to see

#: The namespace beyond the demonstration's cable, and the addresses of RFC 5737 and RFC 3849 on it.
NAMESPACE = f"netmond-demo-{os.getpid()}"
NEAR, FAR = f"nmdemo{os.getpid() % 100000}", "nmfar0"
NEAR4, FAR4, NEAR6, FAR6 = "198.51.100.1", "198.51.100.2", "2001:db8:77::1", "2001:db8:77::2"

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={}/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/>
<allow receive_sender="*"/></policy></busconfig>
"""

#: Two users' work: one downloads over TCP, the other talks UDP over IPv6. Around 3 MB/s.
SERVER = f"""
import socket, threading
def serve(connection):
    try:
        while connection.send(bytes(30000)): threading.Event().wait(0.02)
    except OSError: pass
def datagrams():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
        s.bind(("{FAR6}", 5353))
        while True:
            data, who = s.recvfrom(2000); s.sendto(data[:100], who)
threading.Thread(target=datagrams, daemon=True).start()
with socket.create_server(("{FAR4}", 8080)) as s:
    print("ready", flush=True)
    while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""
DOWNLOAD = f"""
import socket
while True:
    with socket.create_connection(("{FAR4}", 8080)) as s:
        left = 8_000_000
        while left > 0: left -= len(s.recv(65536))
"""
TALK = f"""
import socket, time
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
    s.connect(("{FAR6}", 5353))
    while True: s.send(bytes(900)); s.recv(2000); time.sleep(0.01)
"""


def stop(process: subprocess.Popen[str]) -> None:
    """Ends a process of ours and waits for it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start(stack: ExitStack, *command: str, **options: object) -> subprocess.Popen[str]:
    """Starts a process that ends with the demonstration, also if that is killed; Ctrl-C is for us alone."""
    command = ("setpriv", "--pdeathsig", "TERM", *command)
    process = subprocess.Popen(command, text=True, start_new_session=True, **options)  # type: ignore[call-overload]
    stack.callback(stop, process)
    return process  # type: ignore[no-any-return]


def start_bus(stack: ExitStack, directory: Path) -> None:
    (directory / "bus.conf").write_text(BUS.format(directory))
    config = f"--config-file={directory}/bus.conf"
    bus = start(
        stack, "dbus-daemon", config, "--nofork", "--print-address",
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert bus.stdout is not None
    if not bus.stdout.readline():
        sys.exit("make run: dbus-daemon does not start")
    os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={directory}/bus"


def start_daemon(stack: ExitStack, directory: Path) -> None:
    """Starts netmond and waits until it says READY=1."""
    log = (directory / "netmond.log").open("w")
    stack.callback(log.close)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(f"{directory}/notify")
        ready.settimeout(0.2)
        daemon = start(
            stack, sys.executable, "-m", "netmond", "--state-dir", f"{directory}/state",
            "--log-dir", f"{directory}/log", cwd=TREE, stdout=log, stderr=log,
            env={**os.environ, "NOTIFY_SOCKET": f"{directory}/notify"},
        )  # fmt: skip
        while daemon.poll() is None:
            try:
                if "READY=1" in ready.recv(4096).decode():
                    return
            except TimeoutError:
                continue
    sys.exit("make run: netmond does not start:\n" + (directory / "netmond.log").read_text())


def netmonctl(*arguments: str, quiet: bool = False) -> str:
    """Output of a netmonctl command; what it complains about is part of it unless quiet."""
    stderr = subprocess.DEVNULL if quiet else subprocess.STDOUT
    command = [sys.executable, "-m", "netmonctl", *arguments]
    return subprocess.run(
        command, cwd=TREE, text=True, stdout=subprocess.PIPE, stderr=stderr, check=False
    ).stdout


def traffic() -> int:
    """Bytes that all interfaces but lo have carried, /proc/net/dev."""
    total = 0
    for line in Path("/proc/net/dev").read_text().splitlines()[2:]:
        name, _, rest = line.partition(":")
        fields = rest.split()
        if name.strip() != "lo":
            total += int(fields[0]) + int(fields[8])
    return total


def is_idle() -> bool:
    before = traffic()
    time.sleep(1.5)  # a measurement, not a wait
    return traffic() - before < 1.5 * IDLE


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def sweep() -> None:
    """Takes away what a demonstration that was killed left behind."""
    listed = subprocess.run(["ip", "netns", "list"], text=True, capture_output=True, check=False).stdout
    for name in (line.split()[0] for line in listed.splitlines() if line.startswith("netmond-demo-")):
        if not Path("/proc", name.rpartition("-")[2]).exists():
            ip("netns", "del", name)
    for directory in Path(tempfile.gettempdir()).glob("netmond-run-*"):
        if not Path("/proc", directory.name.split("-")[2]).exists():
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def cable() -> Iterator[None]:
    """A veth pair into a namespace of ours, addressed and up."""
    ip("netns", "add", NAMESPACE)
    try:
        ip("link", "add", NEAR, "type", "veth", "peer", "name", FAR, "netns", NAMESPACE)
        for name, where, four, six in ((NEAR, (), NEAR4, NEAR6), (FAR, ("-n", NAMESPACE), FAR4, FAR6)):
            ip(*where, "addr", "add", f"{four}/30", "dev", name)
            ip(*where, "addr", "add", f"{six}/64", "dev", name, "nodad")
            ip(*where, "link", "set", name, "up")
        yield
    finally:
        # The cable first: deleting the namespace takes it away only a moment later.
        subprocess.run(["ip", "link", "del", NEAR], stderr=subprocess.DEVNULL, check=False)
        ip("netns", "del", NAMESPACE)


def make_traffic(stack: ExitStack) -> None:
    stack.enter_context(cable())
    python = (sys.executable, "-c")
    inside = ("ip", "netns", "exec", NAMESPACE)
    server = start(stack, *inside, *python, SERVER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert server.stdout is not None
    server.stdout.readline()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start(stack, *python, DOWNLOAD, user="nobody", **quiet)
    start(stack, *python, TALK, user="daemon", **quiet)
    for kind, names in (("interface", [NEAR]), ("target", [FAR4, "2001:db8:77::/64"])):
        netmonctl(kind, "add", *names)
        stack.callback(netmonctl, kind, "remove", *names)


def screen(demo: bool) -> str:
    """One picture: status, users, flows; and the targets if we set some."""
    parts = [netmonctl("status"), netmonctl("users", quiet=True), netmonctl("flows", "-n", "10", quiet=True)]
    if demo:
        parts.append(netmonctl("target", "list", quiet=True))
    return "\n".join(parts)


def terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument("--seconds", type=float, help="end by itself after so many seconds")
    parser.add_argument("--service", action="store_true", help="ask the service of this machine")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("make run: loading eBPF programs takes root: sudo make run", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, terminate)
    sweep()
    directory = Path(tempfile.mkdtemp(prefix=f"netmond-run-{os.getpid()}-"))
    live = sys.stdout.isatty()
    left = "leaves the service running" if arguments.service else "leaves nothing behind"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        try:
            if arguments.service:
                print("netmond.service is installed and runs.", flush=True)
            else:
                print("Starting netmond on a private bus, with temporary state ...", flush=True)
                start_bus(stack, directory)
                start_daemon(stack, directory)
            demo = is_idle()
            if demo:
                print(
                    "This machine is idle. Making some traffic: users nobody (TCP) and daemon (UDP, IPv6)\n"
                    f"talk over a cable ({NEAR}) to a namespace of ours.",
                    flush=True,
                )
                make_traffic(stack)
            end = time.monotonic() + (arguments.seconds or float("inf"))
            while time.monotonic() < end:
                time.sleep(2)  # the pace of the picture
                picture = screen(demo)
                print(
                    f"\x1b[H\x1b[2J{picture}\nCtrl-C ends this and {left}." if live else picture, flush=True
                )
        except KeyboardInterrupt:
            print("\nEnding; everything of ours is taken away.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
