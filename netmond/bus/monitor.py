"""What the D-Bus service asks of the daemon, and what it wants to be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from netmond.model import Network, PacketLog, Session, Snapshot


class Monitor(Protocol):
    """The daemon as the bus sees it. Methods raise netmond.errors only, and then have changed nothing."""

    @property
    def version(self) -> str: ...

    @property
    def snapshot(self) -> Snapshot:
        """The last one; before the first tick an empty one."""

    def look(self) -> Snapshot:
        """One that is no older than [daemon] interval; it may be taken now."""

    @property
    def log_level(self) -> str:
        """One of emerg, alert, crit, err, warning, notice, info, debug."""

    @log_level.setter
    def log_level(self, level: str) -> None: ...

    @property
    def log_target(self) -> str:
        """One of console, journal, null."""

    @log_target.setter
    def log_target(self, target: str) -> None: ...

    def targets(self) -> Mapping[Network, float]:
        """Every target there is now with the time (Unix seconds) since when it counts. Cheap: no copy."""

    async def add_targets(self, networks: Sequence[Network]) -> None:
        """Count these from now on, all or none: AlreadyExists, LimitExceeded, Unavailable."""

    async def remove_targets(self, networks: Sequence[Network]) -> None:
        """Forget these, all or none: NoSuchTarget."""

    async def reset_targets(self, networks: Sequence[Network]) -> None:
        """Count these from zero again, all or none: NoSuchTarget."""

    async def monitor_interface(self, name: str, attach: str) -> None:
        """Monitor an interface with attach auto, tc, xdp or xdp-generic: NoSuchInterface, Unavailable."""

    async def unmonitor_interface(self, name: str) -> None:
        """Stop monitoring an interface: NoSuchInterface."""

    def list_packet_logs(self) -> Sequence[PacketLog]:
        """Whose packets are logged one by one now."""

    async def enable_packet_log(self, uids: Sequence[int] | None, every: int) -> None:
        """Log each packet, or one of `every`, of these users or (None) of all, until that is disabled, also
        after a restart: LimitExceeded, Unavailable."""

    async def disable_packet_log(self, uids: Sequence[int] | None) -> None:
        """Log no packets of these users or (None) of anybody any more: NotFound if they were not logged."""

    def open_log(self, uid: int) -> int:
        """A descriptor for reading of the user's CSV log, at its begin: NoSuchLog, Unavailable."""

    def list_sessions(self) -> Sequence[Session]:
        """Captures and paths there are now."""

    async def start_session(self, kind: str, uid: int, options: Mapping[str, Any]) -> tuple[int, int, int]:
        """Start a capture or a path for a user, with sessions.options: InvalidArgs, LimitExceeded,
        NoSuchInterface, Unavailable, KernelError. Returns its number and the reading ends of two pipes, for
        what it finds and for its progress, which are the caller's."""

    async def stop_session(self, number: int) -> None:
        """End a session; what it has is still delivered: NoSuchSession."""

    async def reload(self) -> list[str]:
        """Read the configuration again; return its warnings: ConfigError keeps the old one."""


class Listener(Protocol):
    """What the daemon tells the bus, for whatever reason it happened: a call, a reload, a signal."""

    def ticked(self) -> None:
        """There is a new Snapshot."""

    def targets_changed(self, added: Sequence[Network], removed: Sequence[Network]) -> None:
        """Targets came and went; Monitor.targets() shows it already."""

    def reloaded(self, warnings: Sequence[str]) -> None:
        """The configuration was read again and is in force."""
