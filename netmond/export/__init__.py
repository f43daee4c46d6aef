"""The exporter: a process of its own that delivers figures to other systems."""
