"""A process beside the daemon, for what would cost its memory or its event loop: packet rows, sessions.

`child` is the daemon's side of it, `control` its own. Between them is a socket with a JSON object in each
line, both ways: orders (``do``), each answered in turn with ``done`` or ``error`` and its ``code``, and
reports, which are all other lines.
"""
