"""Benchmarks of netmond: each figure beside a budget and beside what it is compared with in the same run."""
