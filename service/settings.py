"""The service's settings: one frozen object, read from ``FIGMENT_*`` and from options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

Device = Literal["auto", "cuda", "cpu"]


class Settings(BaseSettings):
    """Each is an environment variable, ``FIGMENT_PORT``, and an option, ``--port``, which wins."""

    model_config = SettingsConfigDict(env_prefix="FIGMENT_", frozen=True, extra="forbid")

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. 0.0.0.0 lets every machine that reaches this one in.",
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8000, description="Port to listen on; 0 takes a free one and prints it."
    )
    models: Path = Field(Path("models"), description="The folder with the model files.")
    device: Device = Field(
        "auto",
        description="cuda refuses to start where CUDA cannot be had; auto then takes the CPU and "
        "says why.",
    )
    threads: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Images are computed on this many threads. More than there are cores makes "
        "everything slower. Left out: the cores that the container or affinity allows.",
    )
    default_model: str | None = Field(
        None,
        description="Unconditional model of a request that names none [the first by name].",
    )
    default_conditional_model: str | None = Field(
        None,
        description="Conditional model of a request that names none [the first by name].",
    )
    max_images: Annotated[int, Field(ge=1, le=65536)] = Field(
        1024,
        description="Most images in one answer that is held in memory whole (JSON, PNG). A high "
        "limit lets one request take memory and time from all others.",
    )
