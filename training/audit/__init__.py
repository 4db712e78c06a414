"""Copies, contradictions and small classes in a dataset, found before training."""

__all__ = ["audit", "report"]
