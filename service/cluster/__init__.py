"""The service on Ray Serve: deployment, autoscaling, and middleware for Serve's HTTP servers.

Only this package and ``datasets.ray_executor`` import Ray. ``service.cluster:app`` is imported
lazily, as Serve's own proxy imports ``service.cluster.middleware`` and must not load ONNX Runtime.
"""

from __future__ import annotations

from typing import Any

__all__ = ["app"]


def __getattr__(name: str) -> Any:
    if name == "app":
        from service.cluster.deployment import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
