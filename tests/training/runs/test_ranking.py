"""The best snapshot of a run."""

from __future__ import annotations

from training.runs.ranking import Line, ranked


def line(shown: int, frechet: float, error: float | None = None) -> Line:
    scores = {"shown": shown, "frechet": frechet, "pyramid_16": 1.0}
    return scores if error is None else scores | {"faults_error": error}


def test_without_errors_the_best_has_the_least_faults() -> None:
    assert ranked([line(1, 3.0), line(2, 1.0), line(3, 2.0)]) == [2, 3, 1]
    assert ranked([]) == []


def test_a_later_snapshot_is_preferred_within_the_error() -> None:
    scored = [line(1, 3.0, 0.1), line(2, 1.0, 0.1), line(3, 1.1, 0.1), line(4, 1.2, 0.1)]
    assert ranked(scored) == [3, 2, 4, 1]


def test_the_best_is_always_the_last_snapshot_or_the_best_before_it() -> None:
    """So that it is still there: all others may have been deleted."""
    faults = [3.0, 2.0, 1.0, 1.2, 0.9, 1.05, 1.3, 1.0, 0.5, 0.6]
    lines = [line(n, value, 0.05 * (1 + n % 3)) for n, value in enumerate(faults)]
    for count in range(2, len(lines) + 1):
        assert ranked(lines[:count])[0] in (count - 1, ranked(lines[: count - 1])[0])
