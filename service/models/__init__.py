"""Which models are served: models folder or object store, sandboxed checks, aliases, hot reload.

It does not run models for requests: that is `inference`, driven by `engine`.
"""

__all__ = ["aliases", "model_set", "object_store", "registry", "sandbox"]
