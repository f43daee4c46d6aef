"""What the daemon remembers over a restart: the targets that were added while it ran."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

from netmond.errors import NetmondError
from netmond.model import Network

_FILE = "targets.json"
_MAX_BYTES = 4 << 20


def load_targets(directory: Path) -> list[Network]:
    """The targets saved there; none if nothing was. NetmondError: the file is damaged or unreadable."""
    path = directory / _FILE
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), encoding="utf-8") as file:
            saved = json.loads(file.read(_MAX_BYTES))
        if not isinstance(saved, list) or not all(isinstance(address, str) for address in saved):
            raise ValueError("not a list of addresses")
        return [ip_network(address) for address in saved]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise NetmondError(
            f"cannot read the saved targets: {error}; remove {path} to start without"
        ) from error


def save_targets(directory: Path, targets: Iterable[Network]) -> None:
    """Replaces the saved targets, whole or not at all. NetmondError: it could not."""
    path = directory / _FILE
    draft = path.with_suffix(".new")
    text = json.dumps([str(network) for network in targets])
    try:
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(draft, flags, 0o640), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise NetmondError(f"cannot save the targets in {directory}: {error.strerror}") from error
