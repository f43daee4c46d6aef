"""netmonctl: the command-line client of netmond. Shares no code with the daemon, only D-Bus."""

__version__ = "0.1.0"
