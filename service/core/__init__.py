"""Definition of an image: manifest, label grammar, latents, permanent address, request fields.

Pure functions and data: no network, no model runtime, no files but in `atomic_write` and
`api_keys`. The only room of the service, beside `formats.images` and `cli.options`, that `training`
imports.
"""

__all__ = [
    "address",
    "api_keys",
    "atomic_write",
    "cpus",
    "image_info",
    "image_request",
    "labels",
    "latent_requests",
    "latents",
    "licences",
    "manifest",
    "process",
    "quotas",
    "redact",
    "set_request",
    "text",
]
