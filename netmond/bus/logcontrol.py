"""org.freedesktop.LogControl1: what `systemctl service-log-level` talks to."""

from __future__ import annotations

from dataclasses import dataclass

from netmond import query
from netmond.bus import names
from netmond.bus.authority import Action
from netmond.bus.monitor import Monitor
from netmond.bus.typed import Interface, property_, setter

LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
TARGETS = ("console", "journal", "null")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogControl(Interface):
    name = names.LOG_CONTROL

    monitor: Monitor

    @property_("LogLevel", "s", emits="false")
    def log_level(self) -> str:
        return self.monitor.log_level

    @setter(log_level, action=Action.MANAGE)
    def set_log_level(self, level: str) -> None:
        self.monitor.log_level = query.one_of("LogLevel", level, LEVELS)

    @property_("LogTarget", "s", emits="false")
    def log_target(self) -> str:
        return self.monitor.log_target

    @setter(log_target, action=Action.MANAGE)
    def set_log_target(self, target: str) -> None:
        self.monitor.log_target = query.one_of("LogTarget", target, TARGETS)

    @property_("SyslogIdentifier", "s", emits="const")
    def syslog_identifier(self) -> str:
        return "netmond"
