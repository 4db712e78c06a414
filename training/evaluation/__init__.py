"""Quality of a generator: distances, coverage, memorisation, labels, downstream benefit."""

__all__ = [
    "command",
    "comparison",
    "features",
    "images",
    "inception",
    "measure",
    "recommendation",
    "report",
    "report_html",
    "snapshot_scores",
]
