"""Copies, contradictions and small classes in a dataset, before anyone trains on it."""
