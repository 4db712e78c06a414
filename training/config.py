"""What a run is told: one frozen object, the only list of training's options.

The command line, the run folder's ``config.json`` and the manifest's provenance all come from it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from service.manifest import NAME_PATTERN
from training.data import ACCEPTED


class DataConfig(BaseModel):
    """What is learnt from: a source, and what of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data: str = Field(description=f"{ACCEPTED[0].upper()}{ACCEPTED[1:]}.")
    attributes: tuple[str, ...] | None = Field(
        None,
        description="Labels to learn, as 'hair,eyes'. Left out, all that the data has; 'none' for "
        "an unconditional model.",
    )
    size: Annotated[int, Field(ge=16, le=1024, multiple_of=4)] | None = Field(
        None,
        description="Side in pixels at which images are drawn, out of their largest central square "
        "or out of --crop. Left out, they keep their size, and all must have the same.",
    )
    crop: Annotated[int, Field(ge=16)] | None = Field(
        None, description="Side in pixels of the central square that is kept of each image."
    )

    @field_validator("attributes")
    @classmethod
    def _each_once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError("an attribute is named twice")
        return value

    @field_validator("attributes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return () if value == "none" else tuple(name.strip() for name in value.split(","))


class TrainingConfig(DataConfig):
    """Defaults are those of Radford et al. 2016, but for the width, which suits a GPU."""

    name: str = Field(
        pattern=NAME_PATTERN,
        description="Name of the model: lower-case letters, digits and '-'.",
    )
    licence: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Licence of the data, as the model's card states it.",
    )
    mirror: bool = Field(
        False,
        description="Show every other image mirrored: right for faces, wrong for digits.",
    )
    kimg: Annotated[float, Field(gt=0)] = Field(
        1000, description="How long to train, in thousands of images shown."
    )
    batch: Annotated[int, Field(ge=2)] = Field(128, description="Images in a step.")
    latent_size: Annotated[int, Field(ge=1, le=4096)] = Field(100, description="Z.")
    width: Annotated[int, Field(ge=1)] = Field(
        64,
        description="Channels at half the image's size; 32 trains about 4 times as fast and draws "
        "less finely.",
    )
    lr: Annotated[float, Field(gt=0)] = Field(
        2e-4, description="Adam's learning rate, both networks."
    )
    lr_hold: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0,
        description="Share of the run at the full learning rate; over the rest it falls to 0 along "
        "a cosine.",
    )
    label_weight: Annotated[float, Field(ge=0)] = Field(
        0.5,
        description="Weight of reading the asked labels off the images. More makes small details, "
        "such as eyes, obey sooner, and images more typical of their label; 0 leaves labels to "
        "the judgement of the whole image.",
    )
    beta1: Annotated[float, Field(ge=0, lt=1)] = Field(0.5, description="Adam's beta 1.")
    beta2: Annotated[float, Field(ge=0, lt=1)] = Field(0.999, description="Adam's beta 2.")
    ema_halflife_kimg: Annotated[float, Field(gt=0)] = Field(
        10, description="Half-life of the generator's average, in thousands of images."
    )
    seed: Annotated[int, Field(ge=0)] = Field(0, description="Seed of everything random.")
    tick_kimg: Annotated[float, Field(gt=0)] = Field(
        4, description="A line of the log every so many thousand images."
    )
    snapshot_kimg: Annotated[float, Field(gt=0)] = Field(
        50, description="A sample grid and a checkpoint every so many thousand images."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to compute.")
