"""The machine that netmonctl runs on, as its user sees it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from array import array
from typing import Any

from netmonctl.calls import Call
from netmonctl.client import Client
from netmonctl.doctor.host import Clock, Ran, Space

#: Seconds a program may take.
_PATIENCE = 20.0

# include/uapi/linux/timex.h
_STA_UNSYNC = 0x40
_TIME_ERROR = 5

# include/uapi/linux/sockios.h, ethtool.h, if.h
_SIOCETHTOOL = 0x8946
_ETHTOOL_GFLAGS = 0x25
_ETH_FLAG_LRO = 1 << 15
_IFNAMSIZ = 16


class _Timex(ctypes.Structure):
    """The beginning of struct timex; `rest` is longer than what follows in any architecture's."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


class Machine:
    """Implements Host. `client` carries the D-Bus calls."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def uid(self) -> int:
        return os.geteuid()

    @property
    def release(self) -> str:
        return os.uname().release

    def read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def exists(self, path: str) -> bool:
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def names(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def points_to(self, path: str) -> str:
        return os.path.basename(os.readlink(path))

    def space(self, path: str) -> Space:
        found = os.statvfs(path)
        return Space(
            size=found.f_blocks * found.f_frsize,
            free=found.f_bavail * found.f_frsize,
            inodes=found.f_files,
            free_inodes=found.f_favail,
            read_only=bool(found.f_flag & os.ST_RDONLY),
        )

    def clock(self) -> Clock:
        library = ctypes.CDLL(None, use_errno=True)
        timex = _Timex()  # modes 0: changes nothing
        state = library.adjtimex(ctypes.byref(timex))
        if state < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return Clock(
            synchronised=state != _TIME_ERROR and not timex.status & _STA_UNSYNC,
            max_error=timex.maxerror / 1e6,
        )

    def loads(self, library: str) -> bool:
        try:
            ctypes.CDLL(library)
        except OSError:
            return False
        return True

    def merges_on_receive(self, device: str) -> bool:
        import fcntl
        import socket
        import struct

        value = array("I", (_ETHTOOL_GFLAGS, 0))  # struct ethtool_value
        name = struct.pack(f"={_IFNAMSIZ}s", os.fsencode(device))
        request = name + struct.pack("P", value.buffer_info()[0])  # struct ifreq
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request.ljust(64, b"\0"))
        return bool(value[1] & _ETH_FLAG_LRO)

    def run(self, *command: str) -> Ran:
        # ip and others are not in the path of ordinary users.
        path = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PATIENCE,
                env={**os.environ, "PATH": path, "LC_ALL": "C.UTF-8"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{command[0]} does not end") from None
        return Ran(
            code=done.returncode,
            out=done.stdout.decode(errors="replace"),
            err=done.stderr.decode(errors="replace"),
        )

    def call(self, call: Call) -> list[Any]:
        return self._client.ask(call)
