"""Named configurations: options that go together. What is given beside a preset wins over it."""

from __future__ import annotations

from typing import Any

PAPER: dict[str, Any] = {
    "batch": 128,
    "lr": 2e-4,
    "lr_hold": 1.0,
    "beta1": 0.5,
    "beta2": 0.999,
    "ema_halflife_kimg": 0,
    "d_condition": "input",
    "g_condition": "input",
    "mismatched_weight": 0.0,
    "label_weight": 0.0,
    "augment": "none",
    "precision": "float32",
}
PRESETS: dict[str, dict[str, Any]] = {
    # Radford et al. 2016, section 4 and figure 1; labels as in Mirza and Osindero 2014.
    "dcgan": PAPER | {"network": "dcgan", "width": 128, "d_norm": "batch"},
    # https://www.tensorflow.org/tutorials/generative/dcgan: its networks and batch, Adam as above.
    "dcgan-mnist": PAPER | {"network": "dcgan-mnist", "width": 64, "d_norm": "none"},
}
