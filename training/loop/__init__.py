"""The training loop: steps, ticks, snapshots and their scores, diagnosis, resume."""

__all__ = ["estimate", "loop", "page", "tensorboard"]
