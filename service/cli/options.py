"""Command-line options from the fields of a pydantic model, so that each is described once."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

Command = TypeVar("Command", bound=Callable[..., Any])


def options_of(model: type[BaseModel], but: Container[str] = ()) -> Callable[[Command], Command]:
    """One option for each field of ``model``, ``but`` some: ``lr_hold`` is ``--lr-hold``.

    Options that are not given arrive as None; ``build`` then leaves them to the model.
    """
    prefix = str(model.model_config.get("env_prefix", ""))

    def decorate(command: Command) -> Command:
        for name, field in reversed(model.model_fields.items()):
            if name not in but:
                command = _option(name, field, prefix)(command)
        return command

    return decorate


def build(model: type[BaseModel], values: dict[str, Any]) -> Any:
    """An instance of ``model``. Raises ``click.UsageError`` with all that is wrong with it."""
    try:
        return model(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        raise click.UsageError("\n".join(_explain(model, values, error))) from error


def _option(name: str, field: FieldInfo, prefix: str) -> Callable[[Command], Command]:
    flag = f"--{name.replace('_', '-')}"
    notes = [f"env {prefix}{name.upper()}"] if prefix else []
    if field.is_required():
        notes.append("required")
    elif field.default is not None and field.annotation is not bool:
        notes.append(f"default {field.default}")
    text = f"{field.description} [{'; '.join(notes)}]" if notes else field.description
    if field.annotation is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", default=None, help=text)
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return click.option(flag, metavar="|".join(choices) or "VALUE", help=text)


def _explain(model: type[BaseModel], values: dict[str, Any], error: ValidationError) -> list[str]:
    prefix = str(model.model_config.get("env_prefix", ""))
    lines = []
    for fault in error.errors(include_url=False):
        problem = fault["msg"].removeprefix("Value error, ")
        if not fault["loc"]:  # options that contradict each other
            lines.append(problem)
            continue
        name = str(fault["loc"][0])
        flag = f"--{name.replace('_', '-')}"
        source = flag if values.get(name) is not None or not prefix else f"{prefix}{name.upper()}"
        value = "" if fault["type"] == "missing" else f" (it was {fault['input']!r})"
        if fault["type"] == "string_pattern_mismatch":  # a person would rather read what it means
            problem = f"should be: {model.model_fields[name].description}"
        lines.append(f"{source}: {problem}{value}")
    return lines
