"""The errors netmond raises, each with the stable name that reaches D-Bus callers.

Libraries raise these; only the edges (daemon, D-Bus service, command line) log or print them.
"""

from __future__ import annotations


class NetmondError(Exception):
    """Base of every error meant for a person: one line that says what to do.

    `code` is the last part of the D-Bus error name ``org.netmond1.Error.<code>`` and never changes.
    """

    code = "Failed"


class InvalidArgs(NetmondError):
    """An argument or option is malformed or unknown."""

    code = "InvalidArgs"


class AccessDenied(NetmondError):
    """The caller may not see or change this."""

    code = "AccessDenied"


class NotFound(NetmondError):
    """Base of everything that was named and does not exist."""

    code = "NotFound"


class NoSuchTarget(NotFound):
    code = "NoSuchTarget"


class NoSuchUser(NotFound):
    code = "NoSuchUser"


class NoSuchInterface(NotFound):
    code = "NoSuchInterface"


class NoSuchLog(NotFound):
    code = "NoSuchLog"


class NoSuchSession(NotFound):
    code = "NoSuchSession"


class AlreadyExists(NetmondError):
    code = "AlreadyExists"


class LimitExceeded(NetmondError):
    """A bounded resource (targets, clients, argument size) is used up."""

    code = "LimitExceeded"


class Unavailable(NetmondError):
    """The feature is degraded or off on this machine; the text says why and the remedy."""

    code = "Unavailable"


class ConfigError(NetmondError):
    """A configuration value is wrong; the text names file, key, value and what is allowed."""

    code = "ConfigError"


class KernelError(NetmondError):
    """The kernel refused a program, map or attachment."""

    code = "KernelError"


def by_code(code: str) -> type[NetmondError]:
    """The class of errors with this code; Unavailable if there is none."""
    classes = [NetmondError]
    for each in classes:
        classes += each.__subclasses__()
    return next((each for each in classes if each.code == code), Unavailable)
