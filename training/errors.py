"""Errors of training that the user can act on; the command line prints them without a traceback.

TrainingError
├── DataError           the data cannot be used; lists all problems
│   ├── FixedSize       arrays that cannot be resized
│   └── Unlabelled      no labels, which can be learnt without
├── RunError            a run's folder or device cannot be used
├── CheckpointError     a checkpoint is damaged or belongs to other networks
├── Failed              training failed and was stopped
│   └── Diverged        a loss or a weight is NaN or infinite
├── Interrupted         a signal stopped the run, which can be resumed
└── ExportError         the exported model differs from the trained one
"""

from __future__ import annotations

MAX_LISTED = 50
"""Problems listed in a message; the rest are counted."""


class TrainingError(Exception):
    """Base of all errors of training."""


class DataError(TrainingError):
    """The data cannot be used. ``problems`` holds a sentence for each fault, with its location.

    ``remedy``, for some of them, is printed last.
    """

    def __init__(self, source: str, problems: list[str], remedy: str = "") -> None:
        self.source = source
        self.problems = problems
        shown = [f"  {problem}" for problem in problems[:MAX_LISTED]]
        if len(problems) > MAX_LISTED:
            shown.append(f"  ... and {len(problems) - MAX_LISTED} more")
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{source}: {count}", *shown, *filter(None, [remedy])]))


class FixedSize(DataError):
    """The data is arrays, which keep their size."""


class Unlabelled(DataError):
    """The data has no labels, and was not read as unlabelled data."""


class RunError(TrainingError):
    """A run's folder or device cannot be used."""


class CheckpointError(TrainingError):
    """A checkpoint is damaged or belongs to other networks."""


class Failed(TrainingError):
    """Training failed in a way that further steps do not repair."""


class Diverged(Failed):
    """A loss or a weight is NaN or infinite. The checkpoint, if any, is from before that."""


class Interrupted(TrainingError):
    """A signal stopped the run after a complete step; ``signal`` is its number."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class ExportError(TrainingError):
    """The exported model differs from the trained one."""
