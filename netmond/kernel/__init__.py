"""The kernel side seen from user space: loading, attaching, reading. Knows no D-Bus."""
