"""Generator and discriminator, their layers, losses, regularisers and augmentation.

Tensors in, tensors out: no files and no training loop.
"""

__all__ = [
    "adaptive",
    "augment",
    "conditioning",
    "ema",
    "lecam",
    "losses",
    "marginal",
    "minibatch",
    "networks",
    "norms",
    "regularisers",
    "resampling",
]
