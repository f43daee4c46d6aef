"""Configuration files: read, parsed, and not trusted if everybody may write them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from netmond.errors import ConfigError

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib  # type: ignore[no-redef]

MAX_FILE_BYTES = 4 << 20


def read_toml(path: Path, *, required: bool) -> dict[str, Any]:
    """Parse one file that only its owner's side may write."""
    try:
        # A FIFO must not block the start, hence O_NONBLOCK.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if not required:
            return {}
        raise ConfigError(f"{path}: no such configuration file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror}") from None
    with open(fd, "rb") as file:
        info = os.fstat(fd)
        if os.path.samestat(info, os.stat(os.devnull)):
            return {}
        if not stat.S_ISREG(info.st_mode):
            raise ConfigError(f"{path}: not a regular file")
        _refuse_writable(path, info)
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes, this is no configuration file")
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not valid TOML: nested too deeply") from None


def _refuse_writable(path: Path, info: os.stat_result) -> None:
    if info.st_mode & stat.S_IWOTH:
        raise ConfigError(f"{path}: everybody may write it, so it is not trusted: chmod o-w {path}")


def drop_ins(directory: Path) -> list[Path]:
    """The drop-in files in the order they apply."""
    try:
        info = directory.stat()
        names = sorted(entry.name for entry in os.scandir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{directory}: cannot read the configuration: {error.strerror}") from None
    _refuse_writable(directory, info)
    return [directory / name for name in names if name.endswith(".toml") and not name.startswith(".")]
