"""The same app as replicas of Ray Serve: deployment, autoscaling, and a layer in Ray's proxies.

Beside ``datasets.ray_executor`` nothing else imports Ray. ``service.cluster:app`` is made when it
is first asked for: Ray's proxies import ``service.cluster.proxy``, and must not load the runtime.
"""

from __future__ import annotations

from typing import Any

__all__ = ["app"]


def __getattr__(name: str) -> Any:
    if name == "app":
        from service.cluster.deployment import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
