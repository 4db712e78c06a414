"""Benchmarks: each result stands beside the ceiling of the same run, since ratios are portable."""
