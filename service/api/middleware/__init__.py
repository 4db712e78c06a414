"""ASGI middleware: the gateway around the app, and HEAD."""
