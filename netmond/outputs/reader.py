"""Users' CSV logs for those who read them through the daemon, which decides who may."""

from __future__ import annotations

import os

from netmond.config import OutputConfig, read_options
from netmond.errors import NoSuchLog, Unavailable
from netmond.outputs import csv
from netmond.outputs.files import DIRECTORY_MODE, PASSAGE_MODE, open_directory, open_file
from netmond.outputs.userlog import log_name


def open_log(config: OutputConfig, uid: int) -> int:
    """A descriptor for reading of the file to which a user's rows are appended now, at its first byte.

    `config` is that of the CSV output. NoSuchLog if there is no such file, Unavailable if none is written or
    this one cannot be read. Nothing is made that is not there.
    """
    if not config.enabled:
        raise Unavailable("no logs are written: [output.csv] is switched off in the configuration")
    name = log_name(read_options(csv.OPTIONS, config)[0]["nic"], uid)
    try:
        return _open(str(config.log_dir), str(uid), name, uid)
    except FileNotFoundError:
        raise NoSuchLog(f"user {uid} has no log yet: it begins with the first traffic") from None
    except OSError as error:
        raise Unavailable(f"the log of user {uid} cannot be read: {error.strerror}") from None


def _open(log_dir: str, directory: str, name: str, uid: int) -> int:
    """As files.py opens: below descriptors, the log directory alone may be reached by a link."""
    parent = os.open(log_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for below, mode, reader in (("users", PASSAGE_MODE, None), (directory, DIRECTORY_MODE, uid)):
            found = open_directory(below, parent, mode, reader=reader, make=False)
            os.close(parent)
            parent = found
        return open_file(name, parent, os.O_RDONLY, uid)
    finally:
        os.close(parent)
