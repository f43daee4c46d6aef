"""The way to journald, and the daemon's own log that goes there.

Where the journal's socket and python3-systemd are, messages travel with fields over the native protocol.
Elsewhere they are lines on stderr, marked ``<6>`` as in sd-daemon(3) if stderr is a journal stream.

Every message has PRIORITY, SYSLOG_IDENTIFIER=netmond and CODE_FILE; those of the daemon's own log also:

NETMOND_LOGGER       the part of netmond that says it
CODE_FUNC            where it says it
EXCEPTION_TEXT       a Python traceback, if there is one
NETMOND_SUPPRESSED   messages from the same place left out before this one

Texts may come from anybody. Control characters are escaped, in messages and in fields: journald would keep
them apart, but ``journalctl -x`` prints fields as they are.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TextIO

from netmond.config_table import LOG_LEVELS
from netmond.errors import InvalidArgs
from netmond.outputs.limit import Limit, told
from netmond.outputs.messages import MessageId

IDENTIFIER = "netmond"
SOCKET = "/run/systemd/journal/socket"

#: How LogControl1 names where messages go.
TARGETS = ("auto", "journal", "console", "null")

#: The levels of `logging` by their names in syslog; a severity is a name's place in LOG_LEVELS.
LEVELS: Mapping[str, int] = dict(zip(LOG_LEVELS, (70, 60, 50, 40, 30, 25, 20, 10), strict=True))

#: Fields of several lines; in all others a line break is escaped, too.
_LINES = ("EXCEPTION_TEXT", "NETMOND_WARNINGS")

#: Delivers one message: text, syslog severity (0 to 7), further fields. May raise OSError.
Sender = Callable[[str, int, Mapping[str, str]], None]


def severity(level: int) -> int:
    """The syslog severity of a `logging` level."""
    return next(
        (place for place, name in enumerate(LOG_LEVELS) if level >= LEVELS[name]), len(LOG_LEVELS) - 1
    )


INFO, WARNING = severity(logging.INFO), severity(logging.WARNING)
NOTICE = INFO - 1


def escape(text: str) -> str:
    """Text in one line that moves no cursor and forges no second message."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def _escape_field(name: str, value: str) -> str:
    return "\n".join(map(escape, value.split("\n"))) if name in _LINES else escape(value)


def journal_sender() -> Sender | None:
    """Send over journald's native protocol; None where that is impossible."""
    if not os.path.exists(SOCKET):  # libsystemd would drop every message and say nothing
        return None
    try:
        from systemd.journal import send as native_send
    except ImportError:
        return None

    def send(message: str, priority: int, fields: Mapping[str, str]) -> None:
        where = {"CODE_FILE": __file__} if "CODE_FILE" not in fields else {}
        clean = {key: _escape_field(key, value) for key, value in fields.items()}
        native_send(message, PRIORITY=str(priority), SYSLOG_IDENTIFIER=IDENTIFIER, **where, **clean)

    return send


def line_sender(stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> Sender:
    """Write lines to a stream, stderr by default; fields are left out, but a traceback follows."""

    def send(message: str, priority: int, fields: Mapping[str, str]) -> None:
        out = stream or sys.stderr
        prefix = f"<{priority}>" if _is_journal_stream(out, environ) else ""
        lines = [message, *map(escape, fields.get("EXCEPTION_TEXT", "").splitlines())]
        out.write("".join(f"{prefix}{line}\n" for line in lines))
        out.flush()

    return send


def _is_journal_stream(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether systemd connected this very stream to the journal: JOURNAL_STREAM, systemd.exec(5)."""
    try:
        info = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{info.st_dev}:{info.st_ino}"


def open_sender(target: str = "auto", stream: TextIO | None = None) -> Sender:
    """The sender for a target of `TARGETS`; without a journal ``journal`` is ``console``, too."""
    if target == "null":
        return lambda message, priority, fields: None
    return (journal_sender() if target != "console" else None) or line_sender(stream)


class Handler(logging.Handler):
    """Sends log records; upper-case attributes (``extra={"MESSAGE_ID": ...}``) become fields.

    From one place in the code only so many within a while, at any level; who gives a MESSAGE_ID has limits
    of its own.
    """

    def __init__(self, sender: Sender) -> None:
        super().__init__()
        self.sender = sender
        self._limit = Limit()

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record. It must not raise: without connection the message loses its fields."""
        try:
            suppressed: int | None = 0
            if "MESSAGE_ID" not in vars(record):
                suppressed = self._limit.take((record.pathname, record.lineno), monotonic())
            if suppressed is None:
                return
            message, more = told(escape(record.getMessage()), suppressed)
            fields = {key: str(value) for key, value in vars(record).items() if key.isupper()}
            fields |= {"CODE_FILE": record.pathname, "CODE_FUNC": record.funcName or ""}
            fields |= {"NETMOND_LOGGER": record.name, **more}
            if record.exc_info:
                fields["EXCEPTION_TEXT"] = "".join(traceback.format_exception(*record.exc_info))
            try:
                self.sender(message, severity(record.levelno), fields)
            except OSError:
                line_sender()(message, severity(record.levelno), fields)
        except Exception:
            self.handleError(record)


class LogControl:
    """The daemon's log as LogControl1 sees it: `level` and `target` may change at any time."""

    def __init__(self, level: str, target: str = "auto", stream: TextIO | None = None) -> None:
        self._stream = stream
        self.handler = Handler(line_sender(stream))
        self.target = target
        self.level = level

    @property
    def level(self) -> str:
        return self._level

    @level.setter
    def level(self, level: str) -> None:
        if level not in LEVELS:
            raise InvalidArgs(f"unknown log level {escape(level)!r}: one of {', '.join(LEVELS)}")
        self._level = level
        logging.getLogger().setLevel(LEVELS[level])

    @property
    def target(self) -> str:
        return self._target

    @target.setter
    def target(self, target: str) -> None:
        if target not in TARGETS:
            raise InvalidArgs(f"unknown log target {escape(target)!r}: one of {', '.join(TARGETS)}")
        # LogControl1 knows no "auto": what it has come to is said.
        self._target = target if target != "auto" else "journal" if journal_sender() else "console"
        self.handler.sender = open_sender(target, self._stream)


def setup_logging(level: str, target: str = "auto", stream: TextIO | None = None) -> LogControl:
    """Send the log of the whole process there and nowhere else, from `level` (of LOG_LEVELS) on."""
    logging.addLevelName(LEVELS["notice"], "NOTICE")
    control = LogControl(level, target, stream)
    logging.getLogger().handlers[:] = [control.handler]
    return control


def reloaded(warnings: list[str]) -> None:
    """Log that the configuration was read again."""
    text = f"Configuration reloaded, with {len(warnings)} warnings" if warnings else "Configuration reloaded"
    extra = {"MESSAGE_ID": MessageId.RELOADED.value, "NETMOND_WARNINGS": "\n".join(warnings)}
    logging.getLogger(IDENTIFIER).info(text, extra=extra)
