"""``alias`` and ``rollback``: change the version that an alias of a model means."""

from __future__ import annotations

from pathlib import Path

import click

from service.cli.setting_options import models_option
from service.core.redact import without_passwords
from service.errors import InvalidAlias

RELOAD = "a running service applies this after SIGHUP or POST /models/reload"


@click.command()
@click.argument("name")
@click.argument("alias")
@click.argument("version", type=click.IntRange(min=1))
@models_option
def alias(name: str, alias: str, version: int, models: str) -> None:
    """Point ALIAS of the model NAME to VERSION.

    Requests may use an alias as version. Requests without a version use the alias `default`.
    """
    from service.models import aliases

    try:
        aliases.set_alias(_local_folder(models), name, alias, version)
    except (InvalidAlias, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{alias} of {name} is version {version}; {RELOAD}")


@click.command()
@click.argument("name")
@click.argument("alias")
@models_option
def rollback(name: str, alias: str, models: str) -> None:
    """Point ALIAS of the model NAME back to its previous version."""
    from service.models import aliases

    try:
        version = aliases.roll_back(_local_folder(models), name, alias)
    except (InvalidAlias, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{alias} of {name} is version {version} again; {RELOAD}")


def _local_folder(models: str) -> Path:
    """Path of the models folder. Raises ``InvalidAlias`` for a URL."""
    from service.models.object_store import is_url

    if is_url(models):
        raise InvalidAlias(
            f"{without_passwords(models)} is a URL, and aliases can only be changed in a folder: "
            "edit aliases.json of the model in the object store"
        )
    return Path(models)
