"""``key``: create an API key."""

from __future__ import annotations

import click

from service.errors import StartupError


@click.command()
@click.argument("name")
@click.option("--rate", type=click.IntRange(min=1), help="Rate limit in images per second.")
def key(name: str, rate: int | None) -> None:
    """Create an API key called NAME.

    The key is printed once; the service stores only its hash.
    """
    from service.core.api_keys import make

    try:
        secret, entry = make(name, rate)
    except StartupError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"key, for the client:\n  {secret}")
    click.echo(f"entry, for FIGMENT_API_KEYS or the file FIGMENT_API_KEYS_FILE:\n  {entry}")
