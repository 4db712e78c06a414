"""Queue, admission control, batching and worker threads; deadlines and disconnects of requests.

It knows images and batches, but neither HTTP nor files.
"""

__all__ = ["admission", "engine", "limits", "queue", "search", "stream_limit"]
