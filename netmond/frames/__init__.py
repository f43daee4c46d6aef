"""Frames on demand, as pcapng: a process for each capture, with a filter of its own in the kernel."""
