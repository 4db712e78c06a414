"""Timings and memory, each beside the ceiling of the same run: machines differ, ratios less."""
