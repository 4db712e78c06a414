"""What an image is: model manifest, label grammar, latents, permanent address, request fields.

Pure functions and data: no network, no model runtime, no files but `atomic_write`. The only room
of the service, beside `formats.images` and `cli.options`, that `training` imports.
"""

__all__ = [
    "address",
    "atomic_write",
    "cpus",
    "image_info",
    "image_request",
    "labels",
    "latents",
    "manifest",
    "process",
    "quotas",
    "redact",
    "text",
]
