"""Where the figures go: per-user CSV files, the journal, and outputs of third parties."""
