"""Start the server: check the installation, load the models, listen."""

from __future__ import annotations

import sys
from typing import Any

import click

from service.cli.options import build
from service.core.process import open_standard_streams
from service.errors import StartupError
from service.inference.runtime_check import check_installation
from service.models.sandbox import ModelSandbox
from service.observability.logging import log_to_stderr
from service.server import signals
from service.settings import Settings, check_environment


def serve(options: dict[str, Any]) -> None:
    """Serve until a signal ends the process; ``options`` override the environment."""
    open_standard_streams()
    settings: Settings = build(Settings, options)
    signals.ignore_sighup()
    signals.exit_on_signal()
    try:
        check_environment()
        check_installation()
        sandbox = ModelSandbox(settings.max_model_bytes)
        sandbox.prepare()  # starts while the modules below are imported
        # After check_installation(): this imports ONNX Runtime.
        from service.app import create_app
        from service.server.server import serve as run_server
        from service.server.workers import WorkerProcesses

        log_to_stderr(settings.log_format)
        app = create_app(settings, sandbox)
    except StartupError as error:
        raise click.ClickException(str(error)) from error
    if settings.workers > 1:
        # Each worker process creates its own; this one showed that it can be created.
        del app
        sys.exit(WorkerProcesses(settings, "service.app:create_app").serve())
    run_server(app, settings)
