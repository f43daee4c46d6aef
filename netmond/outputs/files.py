"""Files below ``users``, opened so that nobody can plant a path, and open to those whom they concern.

Everything is opened by name below a directory descriptor, without following links, and refused unless it
is a plain file or directory of ours. Functions raise OSError; nothing here decides what a loss means.

Whatever is opened gets the access it shall have, whoever changed it in between; an administrator's own modes
and access control entries do not last::

    users                         0751  group netmond lists it, others only pass
    users/<uid>                   0750  and the user: list
    users/<uid>/<file>            0640  and the user: read
    users/<uid>/<file>.tmp        0640  while it is made

A reader cannot hinder the daemon: nothing here waits for a lock, and a deleted file gives its space back,
also while somebody has it open. That a user cannot make further links to a file, which would then be
refused, takes ``fs.protected_hardlinks = 1`` (proc(5)), as systemd sets it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from netmond.outputs.access import set_access

#: Of the directories that everybody passes through, of a user's own, and of files.
PASSAGE_MODE = 0o751
DIRECTORY_MODE = 0o750
FILE_MODE = 0o640

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
#: What opening a link, a directory or a pipe fails with, instead of the file it stands for.
_NO_PLAIN_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO)


def open_log_directory(path: str) -> int:
    """Open the directory of all logs, which may be a link or another's and then stays as it is."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        os.mkdir(path)
        fd = os.open(path, flags)
        set_access(fd, PASSAGE_MODE)
        return fd


def open_directory(
    name: str, parent: int, mode: int = DIRECTORY_MODE, *, reader: int | None = None, make: bool = True
) -> int:
    """Open a directory of ours, unless told otherwise making it if it is not there."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        if not make:
            raise
        os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, flags, dir_fd=parent)
    try:
        info = os.fstat(fd)
        if not _ours(info) or info.st_mode & stat.S_IWOTH:
            raise PermissionError(
                errno.EPERM, "directory belongs to somebody else or everybody may write it", name
            )
        _set_access(fd, name, mode, reader)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_file(name: str, directory: int, flags: int, reader: int | None = None) -> int:
    """Open one of our files; with O_CREAT make it if it is not there."""
    try:
        fd = os.open(name, (flags & ~os.O_CREAT) | _FLAGS, dir_fd=directory)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
        fd = os.open(name, flags | os.O_EXCL | _FLAGS, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno in _NO_PLAIN_FILE:
            raise _not_plain(name) from None
        raise
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1 or not _ours(info):
            raise _not_plain(name)
        _set_access(fd, name, FILE_MODE, reader)
    except BaseException:
        os.close(fd)
        raise
    return fd


def remove(name: str, directory: int) -> None:
    """Delete a file and give its space back, also while somebody reads it."""
    with suppress(OSError):  # what is not ours only loses this name
        fd = open_file(name, directory, os.O_WRONLY)
        try:
            os.ftruncate(fd, 0)
        finally:
            os.close(fd)
    os.unlink(name, dir_fd=directory)


class Replacement:
    """A new file that takes the name of an old one when it is complete, and else disappears."""

    def __init__(self, name: str, directory: int, reader: int) -> None:
        self._name = name
        self._directory = directory
        self._reader = reader
        self._making = f"{name}.tmp"

    def __enter__(self) -> int:
        with suppress(FileNotFoundError):
            os.unlink(self._making, dir_fd=self._directory)
        self._fd = open_file(self._making, self._directory, os.O_WRONLY | os.O_CREAT)
        return self._fd

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                set_access(self._fd, FILE_MODE, self._reader)
                os.rename(self._making, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            else:
                with suppress(OSError):
                    os.unlink(self._making, dir_fd=self._directory)
        finally:
            os.close(self._fd)


def _ours(info: os.stat_result) -> bool:
    return info.st_uid in (0, os.geteuid())


def _not_plain(name: str) -> PermissionError:
    return PermissionError(errno.EPERM, "not a plain file of netmond's own, remove it", name)


def _set_access(fd: int, name: str, mode: int, reader: int | None) -> None:
    try:
        set_access(fd, mode, reader)
    except OSError as error:  # says "of what", unlike calls on descriptors
        raise OSError(error.errno, error.strerror, name) from None
