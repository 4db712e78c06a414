"""Every error of training that is told to a person in a sentence.

TrainingError
├── DataError           the data cannot be used; all problems at once
├── RunError            a run's folder or device cannot be used
├── CheckpointError     a checkpoint is damaged or belongs to other networks
├── Failed              training went wrong and was stopped
│   └── Diverged        a loss or a weight is no longer a number
├── Interrupted         a signal ended a run, which can be resumed
└── ExportError         the model file would not be what was trained
"""

from __future__ import annotations

SHOWN = 50


class TrainingError(Exception):
    """Base of all errors of training."""


class DataError(TrainingError):
    """The data cannot be used. ``problems`` holds one sentence for each fault, with its place."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = problems
        shown = [f"  {problem}" for problem in problems[:SHOWN]]
        if len(problems) > SHOWN:
            shown.append(f"  ... and {len(problems) - SHOWN} more")
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{source}: {count}", *shown]))


class RunError(TrainingError):
    """A run's folder or device cannot be used."""


class CheckpointError(TrainingError):
    """A checkpoint is damaged or belongs to other networks."""


class Failed(TrainingError):
    """Training went wrong in a way that no further step would mend."""


class Diverged(Failed):
    """A loss or a weight is no longer a number; a checkpoint, if there is one, is from before."""


class Interrupted(TrainingError):
    """A signal ended a run after its last whole step; ``signal`` is its number."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class ExportError(TrainingError):
    """The model file would not be what was trained."""
