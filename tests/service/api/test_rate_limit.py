from __future__ import annotations

from types import SimpleNamespace

import pytest

from service.api.auth import rate_limit
from service.api.auth.rate_limit import RateLimiter
from service.errors import RateExceeded


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 12345.678  # as long as a machine may run
        monkeypatch.setattr(rate_limit, "time", SimpleNamespace(monotonic=lambda: self.seconds))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize(("rate", "burst"), [(1, 64), (20, 64), (3, 1024), (100_000, 100_000)])
def test_burst_is_allowed_after_a_pause(clock: Clock, rate: int, burst: int) -> None:
    limiter = RateLimiter(rate, burst)
    for _ in range(3):
        limiter.charge(burst)
        assert limiter.charge_or_wait(1) == pytest.approx(1 / rate)
        clock.seconds += burst / rate + 0.001


def test_images_are_allowed_at_the_rate(clock: Clock) -> None:
    """Whatever the size of the requests; those over the limit charge nothing."""
    limiter = RateLimiter(rate=20, burst=64)
    charged, started = 0, clock.seconds
    for number in range(2000):
        images = 1 + number % 60
        if limiter.charge_or_wait(images) == 0:
            charged += images
        clock.seconds += 0.05
    allowed = 64 + 20 * (clock.seconds - started)
    assert allowed - 2 * 64 < charged <= allowed


def test_waiting_as_long_as_told_is_enough(clock: Clock) -> None:
    limiter = RateLimiter(rate=7, burst=64)
    limiter.charge(60)
    with pytest.raises(RateExceeded, match="Try again in 7 s") as raised:
        limiter.charge(50)
    clock.seconds += int(raised.value.headers()["Retry-After"])
    limiter.charge(50)


def test_more_than_the_burst_is_never_allowed(clock: Clock) -> None:
    assert RateLimiter(rate=10, burst=64).charge_or_wait(65) > 0
