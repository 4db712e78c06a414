"""Quality of a generator: distances, coverage, memorisation, labels, downstream benefit."""

__all__ = [
    "command",
    "features",
    "images",
    "inception",
    "measure",
    "recommendation",
    "snapshot_scores",
]
