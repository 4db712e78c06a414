"""The HTTP server: uvicorn with limits per connection, worker processes, signals, shutdown.

It serves any ASGI app; what requests mean is for `api`.
"""

__all__ = ["server", "signals", "workers"]
