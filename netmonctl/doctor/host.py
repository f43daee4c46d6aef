"""The view of a machine that all checks look through: the real one is netmonctl.doctor.machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from netmonctl.calls import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a program ended."""

    code: int
    out: str = ""
    err: str = ""

    @property
    def complaint(self) -> str:
        """The last line it said, standard error first."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1] if lines else f"exit status {self.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A file system: bytes and inodes, those that are free being free for everybody.

    inodes 0: this kind of file system does not count them.
    """

    size: int
    free: int
    inodes: int
    free_inodes: int
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """What adjtimex(2) tells; the greatest possible error in seconds."""

    synchronised: bool
    max_error: float


class Host(Protocol):
    """A machine as this user sees it. Everything raises OSError for what cannot be looked at."""

    @property
    def uid(self) -> int:
        """Who looks."""

    @property
    def release(self) -> str:
        """The kernel's, as uname(2) tells it."""

    def read(self, path: str) -> bytes:
        """A file."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory."""

    def names(self, path: str) -> list[str]:
        """What a directory has in it, in order. FileNotFoundError: it is not there."""

    def points_to(self, path: str) -> str:
        """The last component of what a symbolic link leads to."""

    def space(self, path: str) -> Space:
        """The file system that a path is on."""

    def clock(self) -> Clock:
        """The system's clock."""

    def loads(self, library: str) -> bool:
        """Whether the dynamic linker finds a library of this name, such as libpcap.so.0.8."""

    def merges_on_receive(self, device: str) -> bool:
        """Whether a network interface has large receive offload (LRO) switched on."""

    def run(self, *command: str) -> Ran:
        """Run a program in the C locale, without input. FileNotFoundError: it is not installed."""

    def call(self, call: Call) -> list[Any]:
        """A D-Bus call and what it returned. CtlError: what went wrong."""


def text(host: Host, path: str) -> str:
    """A small file as text without the newline at its end."""
    return host.read(path).decode(errors="replace").rstrip("\n")


def installing(host: Host, debian: str, others: str = "") -> str:
    """How to install a package here, which may have another name where it is no Debian package."""
    if host.exists("/usr/bin/apt"):
        return f"apt install {debian}"
    package = others or debian
    return f"dnf install {package}" if host.exists("/usr/bin/dnf") else f"install the package {package}"
