"""netmond: who uses the network on this machine, how much, with whom."""

__version__ = "0.1.0"
