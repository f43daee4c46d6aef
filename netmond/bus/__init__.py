"""The D-Bus service: authority and queries over the last Snapshot. Knows nothing of the kernel."""

import sys

# dbus-next loads GLib if it finds it, which costs 4 MB and which nothing here uses
if "gi" not in sys.modules:
    sys.modules["gi"] = None  # type: ignore[assignment]
    import dbus_next.aio

    del sys.modules["gi"], dbus_next
