"""The command line: ``python -m service``."""

from __future__ import annotations

from typing import Any

import click
from starlette.types import ASGIApp

from service.errors import StartupError
from service.installation import check_installation
from service.options import build, options_of
from service.settings import Settings, check_environment


@click.command(context_settings={"max_content_width": 100})
@options_of(Settings)
def serve(**given: Any) -> None:
    """Serve the models over HTTP.

    Every option is also an environment variable; the option wins.
    """
    settings: Settings = build(Settings, given)
    try:
        check_environment()
        check_installation()
        from service import server  # not before the check: it imports ONNX Runtime
        from service.app import create_app

        server.log_to_stderr()
        app: ASGIApp | None = create_app(settings)
    except StartupError as error:
        raise click.ClickException(str(error)) from error
    if settings.workers > 1:
        app = None  # it could be made, so each worker can make one
    server.run(app, settings)


if __name__ == "__main__":
    serve()
