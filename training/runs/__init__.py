"""The folder of a run: configuration, data, logs, checkpoints, snapshots, and samples from them."""

__all__ = ["checkpoint", "log", "ranking", "run", "sampling"]
