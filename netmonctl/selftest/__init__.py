"""selftest: known traffic past every counter of the running netmond, and a comparison."""
