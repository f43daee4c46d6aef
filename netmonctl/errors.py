"""What goes wrong, as the shell sees it."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of netmonctl; documented, so they never change."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_RUNNING = 3
    NOT_ALLOWED = 4
    UNKNOWN_OBJECT = 5
    INTERRUPTED = 130  #: by Ctrl-C, as shells count it


class CtlError(Exception):
    """Ends the command: one line for the person, one exit code for the script."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILURE) -> None:
        super().__init__(message)
        self.code = code


class NotAllowed(CtlError):
    """netmond refuses; somebody who authenticates may be allowed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.NOT_ALLOWED)


def usage(message: str) -> CtlError:
    """The error for a command line that makes no sense."""
    return CtlError(message, ExitCode.USAGE)
