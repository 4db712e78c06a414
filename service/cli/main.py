"""Command line: ``python -m service`` serves; its subcommands are a client and tools.

Modules that a command needs are imported when it runs, so that the server starts fast.
"""

from __future__ import annotations

from typing import Any

import click

from service.cli import aliases, api_keys, fetch, make_dataset
from service.cli.options import options_of
from service.cli.serve import serve
from service.settings import Settings


@click.group(invoke_without_command=True, context_settings={"max_content_width": 100})
@options_of(Settings)
@click.pass_context
def main(context: click.Context, /, **options: Any) -> None:
    """Serve the models over HTTP.

    Every option is also an environment variable; the option wins.
    """
    if context.invoked_subcommand is None:
        serve(options)


for command in (
    fetch.fetch,
    make_dataset.make_dataset,
    api_keys.key,
    aliases.alias,
    aliases.rollback,
):
    main.add_command(command)
