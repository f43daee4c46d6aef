"""polkit's text agent: asks for a password on this terminal, where no desktop does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

#: Seconds the agent may take to get ready, and to end.
_PATIENCE = 5.0


@contextmanager
def text_agent() -> Iterator[None]:
    """Run pkttyagent(1), as a fallback to a desktop's agent; without polkit's tools there is none."""
    terminal = _settings()
    ready, registered = os.pipe()
    command = ["pkttyagent", "--notify-fd", str(registered)]
    if "XDG_SESSION_ID" in os.environ:  # polkit looks for fallbacks only if the caller has a session
        command.append("--fallback")
    try:
        # Its complaint that there is no polkit is not needed: netmond says so, too.
        agent = subprocess.Popen(command, pass_fds=(registered,), stderr=subprocess.DEVNULL)
    except OSError:
        os.close(ready)
        os.close(registered)
        yield
        return
    os.close(registered)
    try:
        _wait_until_closed(ready)
        yield
    except KeyboardInterrupt:
        print(file=sys.stderr)  # the cursor stands behind the agent's prompt
        raise
    finally:
        os.close(ready)
        agent.terminate()
        try:
            agent.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            agent.kill()
            agent.wait()
        _restore(terminal)


def _wait_until_closed(descriptor: int) -> None:
    """The agent closes its end when polkit knows it, or by ending."""
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLHUP)
    poll.poll(_PATIENCE * 1000)


def _settings() -> list[Any] | None:
    """The terminal's, if standard input is one."""
    import termios

    with suppress(OSError, ValueError, termios.error):
        return termios.tcgetattr(sys.stdin.fileno())
    return None


def _restore(terminal: list[Any] | None) -> None:
    """An agent that was interrupted at the password prompt leaves a terminal that does not echo."""
    import termios

    if terminal is not None:
        with suppress(OSError, ValueError, termios.error):
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, terminal)
