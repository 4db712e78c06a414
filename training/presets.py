"""Named configurations: options that go together. What is given beside a preset wins over it."""

from __future__ import annotations

from typing import Any

PAPER: dict[str, Any] = {
    "loss": "non-saturating",
    "batch": 128,
    "lr": 2e-4,
    "lr_hold": 1.0,
    "beta1": 0.5,
    "beta2": 0.999,
    "ema_halflife_kimg": 0,
    "g_condition": "input",
    "d_condition": "input",
    "mismatched_weight": 0.0,
    "label_weight": 0.0,
    "augment": "none",
}
"""What the historical presets share: labels as in Mirza and Osindero 2014, nothing since."""

FOUND: dict[str, Any] = {
    "loss": "non-saturating",
    "batch": 64,
    "lr": 4e-4,
    "lr_hold": 0.5,
    "d_norm": "batch",
    "g_condition": "input",
    "d_condition": "mix",
    "mismatched_weight": 0.5,
    "label_weight": 0.2,
    "minibatch": "discrimination",
}
"""What the ablation found, for all that is not the data's own (docs/training.md)."""

PRESETS: dict[str, dict[str, Any]] = {
    # Radford et al. 2016, section 4 and figure 1.
    "dcgan": PAPER | {"network": "dcgan", "width": 128, "d_norm": "batch"},
    # The networks of https://www.tensorflow.org/tutorials/generative/dcgan.
    "dcgan-mnist": PAPER | {"network": "dcgan-mnist", "width": 64, "d_norm": "none"},
    "faces": FOUND | {"augment": "translation,cutout", "mirror": True},
    "digits": FOUND | {"augment": "translation", "mirror": False},
    # 200,000 images are no small set: no augmentation. The faces fill the middle of 178x218.
    "celeba": FOUND | {"crop": 148, "size": 64, "mirror": True, "batch": 128, "kimg": 10_000},
}
