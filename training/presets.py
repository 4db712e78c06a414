"""Named sets of training options. Options on the command line override a preset."""

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
"""Shared by the historical presets: labels as in Mirza and Osindero 2014, no later method."""

ABLATED: dict[str, Any] = {
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
"""Best options of the ablation, but for those that depend on the data (docs/training.md)."""

PRESETS: dict[str, dict[str, Any]] = {
    # Radford et al. 2016, section 4 and figure 1.
    "dcgan": PAPER | {"network": "dcgan", "width": 128, "d_norm": "batch"},
    # The networks of https://www.tensorflow.org/tutorials/generative/dcgan.
    "dcgan-mnist": PAPER | {"network": "dcgan-mnist", "width": 64, "d_norm": "none"},
    "faces": ABLATED | {"augment": "translation,cutout", "mirror": True},
    # One more block than 64x64: twice the detail at a third more multiplications.
    "faces-128": ABLATED | {"augment": "translation,cutout", "size": 128, "mirror": True},
    # 100 to 1,000 images: minutes on a laptop, and no guess whether mirrored images are right.
    "small": ABLATED
    | {"augment": "translation,cutout", "width": 32, "kimg": 100, "snapshot_kimg": 10},
    "digits": ABLATED | {"augment": "translation", "mirror": False},
    # No augmentation: 200,000 images are enough without. The faces fill the centre of 178x218.
    "celeba": ABLATED | {"crop": 148, "size": 64, "mirror": True, "batch": 128, "kimg": 10_000},
}
