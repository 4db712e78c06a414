"""Text for one line, and drawn seeds."""

from __future__ import annotations

import pytest

from service.core.latents import MAX_SEED, draw_seed
from service.core.text import first_line, printable, shortened


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n\n  broken \nat line 3"), "broken"),
        (ValueError("broken"), "broken"),
        (ValueError(""), "ValueError('')"),
    ],
)
def test_first_line_of_an_error(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_long_text_is_shortened() -> None:
    assert shortened(" red eyes ") == "red eyes"
    assert shortened("x" * 81) == "x" * 80 + "..."


def test_unprintable_characters_are_escaped() -> None:
    assert printable("red\n\x1b[31m caf\u00e9") == "red\\n\\x1b[31m caf\u00e9"


def test_drawn_seeds_are_in_range_and_differ() -> None:
    seeds = {draw_seed() for _ in range(100)}
    assert len(seeds) == 100
    assert all(0 <= seed <= MAX_SEED for seed in seeds)
