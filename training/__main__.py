"""``python -m training``: see ``training.cli``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click


class NotInstalled(Exception):
    """A library of training is not installed here."""


def commands() -> click.Group:
    """The commands of training. Raises ``NotInstalled``."""
    try:
        from training.cli import main
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith(("training", "service")):
            raise
        raise NotInstalled(
            f"training needs {error.name}, which {sys.executable} does not have: `make develop` "
            "installs all that training needs into .venv of Figment's folder"
        ) from error
    return main


if __name__ == "__main__":
    try:
        commands()()
    except NotInstalled as error:
        sys.exit(str(error))
