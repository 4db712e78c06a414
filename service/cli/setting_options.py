"""Options of tools that are settings of the server, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from service.settings import PREFIX, Settings

Command = TypeVar("Command", bound=Callable[..., Any])


def setting_option(name: str, **overrides: Any) -> Callable[[Command], Command]:
    """Option with default, variable and help text of the setting ``name``."""
    field = Settings.model_fields[name]
    options: dict[str, Any] = {
        "default": field.default,
        "show_default": True,
        "envvar": f"{PREFIX}{name.upper()}",
        "help": field.description,
    }
    return click.option(f"--{name.replace('_', '-')}", **options | overrides)


models_option = setting_option("models", metavar="PATH")
