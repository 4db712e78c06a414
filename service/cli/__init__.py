"""The commands of `python -m service`, one module each, and what they share."""

__all__ = ["main", "options", "serve"]
