"""A row for every packet: a process that reads records of packets from the kernel and writes them to files.

It runs only while somebody's packets are logged, beside the daemon, so that the daemon's memory stays small
and its event loop on time. `supervisor` is the daemon's side, all else the worker's.
"""
