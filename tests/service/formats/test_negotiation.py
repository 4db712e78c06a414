from __future__ import annotations

import pytest

from service.errors import NotAcceptable
from service.formats.negotiation import choose

OFFERED = ("json", "png", "webp", "jpeg")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("application/json", "json"),
        ("image/png", "png"),
        ("IMAGE/WebP", "webp"),
        ("image/*", "png"),
        ("text/html, image/webp, */*;q=0.8", "webp"),
        ("image/png;q=0.5, image/jpeg;q=0.9", "jpeg"),
        ("application/json;q=0.1, image/*;q=0.2", "png"),
        ("image/*, image/png;q=0", "webp"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "json"),
        ("image/png;q=nonsense, image/webp;q=0.1", "webp"),
        (",,", "json"),
    ],
)
def test_accept(accept: str, chosen: str) -> None:
    assert choose(accept, None, OFFERED) == chosen


def test_format_wins_over_accept() -> None:
    assert choose("image/png", "jpeg", OFFERED) == "jpeg"


@pytest.mark.parametrize("accept", ["text/html", "image/gif", "image/png;q=0", "*/*;q=0"])
def test_nothing_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptable, match=r"png \(image/png\)"):
        choose(accept, None, OFFERED)


def test_accept_is_bounded() -> None:
    """60,000 commas would hold up all other requests for 30 ms."""
    with pytest.raises(NotAcceptable, match=r"more than 2000 characters.*png \(image/png\)"):
        choose("," * 60_000, None, OFFERED)
    assert choose("," * 60_000, "png", OFFERED) == "png"


def test_unknown_format() -> None:
    with pytest.raises(NotAcceptable, match="'gif' is not one of these"):
        choose("", "gif", OFFERED)
