"""``figment COMMAND``: a command of the service, or one of training if PyTorch is installed.

Training takes seconds to import, so only its own commands and ``--help`` do.
"""

from __future__ import annotations

import sys

import click

from service.cli.main import main as service
from service.cli.serve import serve
from training.__main__ import NotInstalled, commands

SERVE = click.Command(
    "serve", callback=lambda **options: serve(options), params=service.params, help=service.help
)


def main() -> None:
    """Run the command that the first argument names."""
    group = click.Group(
        "figment",
        {"serve": SERVE, **service.commands},
        help="Labelled synthetic images: serve models, fetch sets, train.",
        context_settings=service.context_settings,
    )
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in group.commands:
        try:
            training = commands()
        except NotInstalled as error:
            if not name.startswith("-"):
                sys.exit(f"figment {name}: not a command of the service; {error}")
            group.epilog = f"Commands of training are not listed: {error}."
        else:
            if not name.startswith("-"):
                group = training  # it prints the errors of its commands as sentences
            else:
                group.commands.update(training.commands)
    group(prog_name="figment")


if __name__ == "__main__":
    main()
