"""The command line: ``python -m service``."""

from __future__ import annotations

import logging
import sys
from typing import Any

import click
import uvicorn

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
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        check_environment()
        check_installation()
        from service.app import create_app  # not before the check: it imports ONNX Runtime

        app = create_app(settings)
    except StartupError as error:
        raise click.ClickException(str(error)) from error
    uvicorn.run(app, host=settings.host, port=settings.port, access_log=False, log_config=None)


if __name__ == "__main__":
    serve()
