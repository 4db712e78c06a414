"""Datasets as files: plan, shards, manifest, resume; built on this machine or on a Ray cluster.

The same files, names and bytes as the client fetches from a server. No server is needed here.
"""

__all__ = [
    "build",
    "class_counts",
    "indexes",
    "local_executor",
    "manifest",
    "object_storage",
    "plan_file",
    "progress",
    "ray_executor",
    "repository",
    "shard_writer",
    "storage",
]
