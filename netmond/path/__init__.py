"""The way of packets through the kernel, on demand: a session's process (netmond/sessions)."""
