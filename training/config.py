"""Options of a run: one frozen object.

The command line, the run folder's ``config.json`` and the manifest's provenance all come from it.
"""

from __future__ import annotations

import codecs
from typing import Annotated, Any, Literal, Self

from PIL import ImageColor
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from service.core.manifest import NAME_PATTERN
from training.data import ACCEPTED

MINIBATCH_GROUPS = {"none": 1, "stddev": 4, "discrimination": 16}
"""Images that a minibatch layer compares; 4 for stddev as in Karras et al. 2018, section 3."""


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    return () if value == "none" else tuple(name.strip() for name in value.split(","))


Operation = Literal["translation", "cutout", "colour", "geometric", "noise"]
"""Augmentation (``training.networks.augment``)."""

Split = BeforeValidator(_split)
"""Validator for lists of names from the command line: ``"hair,eyes"``, or ``"none"``."""


class DataConfig(BaseModel):
    """Data source, and the part of it that is used."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data: str = Field(description=f"{ACCEPTED[0].upper()}{ACCEPTED[1:]}.")
    attributes: Annotated[tuple[str, ...] | None, Split] = Field(
        None,
        description="Labels to learn, such as 'hair,eyes'; 'none' for an unconditional model. "
        "Without this option, all labels of the data.",
    )
    size: Annotated[int, Field(ge=16, le=1024, multiple_of=4)] | None = Field(
        None,
        description="Side in pixels to which the largest central square of each image, or --crop, "
        "is resized. Without this option, images keep their size and must all have the same.",
    )
    crop: Annotated[int, Field(ge=16)] | None = Field(
        None, description="Side in pixels of the central square cut out of each image."
    )
    pad: str | None = Field(
        None,
        description="Colour, such as white or '#808080', of borders that make each image square, "
        "so that --size keeps all of it instead of the central square.",
    )
    on_bad: Literal["stop", "skip"] = Field(
        "stop",
        description="What to do about images that cannot be read: stop and list them, or skip and "
        "count them.",
    )
    split: str | None = Field(
        None,
        min_length=1,
        description="Split to read, such as 'train' or the name of its folder; 'none' reads all. "
        "Without this option, the one for training.",
    )
    table: str | None = Field(
        None,
        min_length=1,
        description="File that the labels come from, if the data has several.",
    )
    encoding: str | None = Field(
        None,
        description="Encoding of file names and tables that are not UTF-8, such as cp932.",
    )
    unconditional: bool = Field(
        False, description="Learn without labels; the same as --attributes none."
    )

    @field_validator("attributes")
    @classmethod
    def _each_once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError("an attribute is named twice")
        return value

    @field_validator("pad")
    @classmethod
    def _known_colour(cls, value: str | None) -> str | None:
        if value is not None:
            ImageColor.getrgb(value)  # its error says so
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                codecs.lookup(value)
            except LookupError as error:
                raise ValueError("is no encoding that Python knows") from error
        return value

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        if self.unconditional and self.attributes:
            raise ValueError("unconditional learns no labels, but attributes names some")
        if self.crop is not None and self.pad is not None:
            raise ValueError("crop cuts images to a square and pad extends them: choose one")
        return self

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments of ``training.data.load`` but the source."""
        return {
            "attributes": () if self.unconditional else self.attributes,
            "size": self.size,
            "crop": self.crop,
            "pad": self.pad,
            "skip_bad": self.on_bad == "skip",
            "split": self.split,
            "table": self.table,
            "encoding": self.encoding,
        }


class TrainingConfig(DataConfig):
    """Training options, with ranges and defaults."""

    name: str = Field(
        pattern=NAME_PATTERN,
        description="Name of the model: lower-case letters, digits and '-'.",
    )
    licence: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Licence of the data, stated in the model card.",
    )
    clusters: Annotated[int, Field(ge=2, le=1000)] | None = Field(
        None,
        description="With --unconditional: train on so many groups of similar images in place of "
        "labels, and draw the group at random in the finished model.",
    )
    mirror: bool = Field(
        False,
        description="Mirror each image with probability 1/2: right for faces, wrong for digits.",
    )
    hold_out: Annotated[float, Field(ge=0, le=0.5)] | None = Field(
        None,
        description="Share of the images held out from training, to measure samples against "
        "[default: a tenth; of fewer than 1,000 images 100, at most a quarter; of fewer than 128, "
        "32].",
    )
    images: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Train on so many of the images that are not held out, always the same ones: "
        "what a smaller set would give, measured against the same images [default: all].",
    )
    kimg: Annotated[float, Field(gt=0)] = Field(
        1000, description="Length of the run, in thousands of images shown."
    )
    batch: Annotated[int, Field(ge=2)] = Field(128, description="Images per step.")
    latent_size: Annotated[int, Field(ge=1, le=4096)] = Field(
        100, description="Size of the latent vector."
    )
    network: Literal["dcgan", "dcgan-mnist"] = Field(
        "dcgan",
        description="'dcgan': 4x4 convolutions; 'dcgan-mnist': 5x5 convolutions, one more at the "
        "start of the generator, and dropout in the discriminator.",
    )
    width: Annotated[int, Field(ge=1)] = Field(
        64,
        description="Channels at half the image's size; 32 trains about 4 times as fast, with less "
        "detail.",
    )
    d_width: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Channels of the discriminator at half the image's size [default: --width]; "
        "more cost nothing when the model is served.",
    )
    last_block: Literal["transposed", "soft", "blurred", "nearest", "detail"] = Field(
        "transposed",
        description="How the generator makes the full size: a transposed convolution, the same "
        "with a kernel blurred a little or more, upsampling by repetition, or one more layer at "
        "the full size.",
    )
    d_band: bool = Field(
        False, description="Show the discriminator the finest details as channels of their own."
    )
    loss: Literal["non-saturating", "hinge", "least-squares", "wgan-gp", "relativistic"] = Field(
        "non-saturating", description="Adversarial loss."
    )
    lr: Annotated[float, Field(gt=0)] = Field(2e-4, description="Adam's learning rate.")
    d_lr: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Learning rate of the discriminator [default: --lr]."
    )
    lr_hold: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0,
        description="Share of the run at the full learning rate; afterwards it falls to 0 along a "
        "cosine.",
    )
    beta1: Annotated[float, Field(ge=0, lt=1)] = Field(0.5, description="Adam's beta 1.")
    beta2: Annotated[float, Field(ge=0, lt=1)] = Field(0.999, description="Adam's beta 2.")
    d_steps: Annotated[int, Field(ge=1)] = Field(
        1, description="Discriminator steps per generator step."
    )
    ema_halflife_kimg: Annotated[float, Field(ge=0)] = Field(
        10,
        description="Half-life of the generator's moving average, in thousands of images; 0 turns "
        "it off.",
    )
    ema_sigmas: Annotated[tuple[Annotated[float, Field(gt=0, lt=0.28)], ...], Split] = Field(
        (),
        description="Widths of further moving averages, such as '0.05,0.1', as shares of the "
        "images shown so far; each snapshot is of the one with the best scores.",
    )
    d_norm: Literal["batch", "spectral", "chain", "none"] = Field(
        "batch",
        description="Normalisation in the discriminator; 'chain' is spectral norm and CHAIN, which "
        "bounds the gradients of the features.",
    )
    lecam_weight: Annotated[float, Field(ge=0)] = Field(
        0,
        description="Weight of LeCam regularisation, for data of fewer than about 30,000 images.",
    )
    r1_gamma: Annotated[float, Field(ge=0)] = Field(
        0, description="Weight of the gradient penalty on real images (R1)."
    )
    r2_gamma: Annotated[float, Field(ge=0)] = Field(
        0, description="Weight of the gradient penalty on generated images (R2)."
    )
    penalty_every: Annotated[int, Field(ge=1)] = Field(
        1,
        description="Apply the gradient penalties every N steps, scaled by N (lazy "
        "regularisation).",
    )
    minibatch: Literal["none", "stddev", "discrimination"] = Field(
        "none", description="How the discriminator compares the images of a batch."
    )
    augment: Annotated[tuple[Operation, ...], Split] = Field(
        (),
        description="Augmentations of all images that the discriminator sees, such as "
        "'translation,cutout': for data of fewer than about 30,000 images. They must not change "
        "what a label describes. 'geometric' scales, shifts and rotates a little, 'noise' is a "
        "cutout filled with noise.",
    )
    augment_probability: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.7, description="Probability of each augmentation; near 1 they appear in the samples."
    )
    augment_target: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="Adapt the probability, from 0 to at most --augment-probability, so that "
        "positive outputs of the discriminator for real images exceed negative ones by this share, "
        "such as 0.6 [default: fixed probability].",
    )
    consistency_real: Annotated[float, Field(ge=0)] = Field(
        0,
        description="Weight of the difference between the discriminator's outputs for a real image "
        "with and without augmentation.",
    )
    consistency_fake: Annotated[float, Field(ge=0)] = Field(
        0, description="Likewise, for generated images."
    )
    g_condition: Literal["input", "norm"] = Field(
        "input",
        description="Where the generator reads labels: beside the latent, or in each batch norm.",
    )
    d_condition: Literal["input", "mix", "projection", "none"] = Field(
        "mix",
        description="Where the discriminator reads labels: as extra image channels, mixed into its "
        "last features, projected onto them, or nowhere.",
    )
    mismatched_weight: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.5,
        description="Weight of (real image, wrong label) pairs in the discriminator's fake loss; "
        "generated images get the rest.",
    )
    label_weight: Annotated[float, Field(ge=0)] = Field(
        0.5,
        description="Weight of the label classification loss. Higher values make small details, "
        "such as eyes, follow their labels sooner, and images more typical of their label; with 0 "
        "labels affect only the adversarial loss.",
    )
    label_weight_end: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="Weight of the label classification loss at the end of the run, to which it "
        "moves evenly [default: --label-weight].",
    )
    label_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0, description="Share of labels hidden from the networks in training."
    )
    label_ramp_kimg: Annotated[float, Field(ge=0)] = Field(
        0, description="Thousands of images over which labels fade in from nothing."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Precision of convolutions; 'auto' is bfloat16 if the processor supports it.",
    )
    compile: bool | None = Field(None, description="Compile the networks [default: on CUDA only].")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="Seed of all randomness.")
    tick_kimg: Annotated[float, Field(gt=0)] = Field(
        4, description="Thousands of images between two log lines."
    )
    snapshot_kimg: Annotated[float, Field(gt=0)] = Field(
        50,
        description="Thousands of images between snapshots: sample grid, scores, checkpoint.",
    )
    patience_kimg: Annotated[float, Field(ge=0)] = Field(
        0,
        description="End the run when no snapshot has been better for this many thousand images; "
        "0 never does.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Device to compute on.")

    @property
    def is_penalised(self) -> bool:
        """True if the discriminator has a gradient penalty."""
        return bool(self.r1_gamma or self.r2_gamma) or self.loss == "wgan-gp"

    @property
    def reading(self) -> dict[str, Any]:
        return super().reading | {"clusters": self.clusters}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.clusters is not None and not self.unconditional:
            raise ValueError("clusters take the place of labels: they need unconditional")
        if self.is_penalised and self.d_norm == "batch":
            raise ValueError(
                "gradient penalties (r1_gamma, r2_gamma, wgan-gp) judge each image by itself, "
                "which batch norm does not: d_norm must be spectral or none"
            )
        if self.loss == "relativistic" and self.lecam_weight:
            raise ValueError(
                "the logits of a relativistic loss have no level of their own, to which LeCam "
                "would draw them: lecam_weight must be 0"
            )
        if self.d_condition == "input" and self.label_weight:
            raise ValueError(
                "with d_condition input the labels could be read off the input: label_weight "
                "must be 0"
            )
        if self.d_condition == "none" and self.mismatched_weight:
            raise ValueError(
                "with d_condition none the discriminator cannot recognise wrong labels: "
                "mismatched_weight must be 0"
            )
        if self.label_weight_end is not None and not self.label_weight:
            raise ValueError(
                "label_weight_end changes the weight of a label head, but there is none"
            )
        if not self.augment and (
            self.augment_target is not None or self.consistency_real or self.consistency_fake
        ):
            raise ValueError(
                "augment_target, consistency_real and consistency_fake need an augmentation: "
                "choose some with augment"
            )
        if self.label_ramp_kimg > self.kimg:
            raise ValueError("label_ramp_kimg is longer than the run (kimg)")
        group = MINIBATCH_GROUPS[self.minibatch]
        if self.batch % group:
            raise ValueError(f"minibatch {self.minibatch} needs a batch that {group} divides")
        return self
