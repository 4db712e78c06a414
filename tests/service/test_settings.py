"""Numbers that no setting accepts."""

from __future__ import annotations

import re

import click
import pytest

from service.cli.options import build
from service.settings import PREFIX, Settings

NUMBERS = [
    name
    for name, field in Settings.model_fields.items()
    if re.search(r"\b(int|float)\b", str(field.annotation))
]


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "1e300"])
@pytest.mark.parametrize("name", NUMBERS)
def test_number_out_of_range_is_an_error(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"{PREFIX}{name.upper()}"
    monkeypatch.setenv(variable, value)
    with pytest.raises(click.UsageError) as error:
        build(Settings, {})
    assert error.value.message.startswith(f"{variable}: Input should be ")
    assert error.value.message.endswith(f"(it was '{value}')")


def test_every_kind_of_number_is_tried() -> None:
    assert {"port", "rate_limit", "threads", "timeout", "drain"} <= set(NUMBERS)
