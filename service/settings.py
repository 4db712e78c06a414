"""The service's settings: one frozen object, read from ``FIGMENT_*`` and from options."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.errors import StartupError

PREFIX = "FIGMENT_"
CLIENT_KEY = "FIGMENT_API_KEY"
"""What the client sends, and no setting."""
Device = Literal["auto", "cuda", "cpu"]
LogFormat = Literal["text", "json"]


class Settings(BaseSettings):
    """Each is an environment variable, ``FIGMENT_PORT``, and an option, ``--port``, which wins."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. 0.0.0.0 lets every machine that reaches this one in, "
        "which takes an API key or --allow-anonymous.",
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8000, description="Port to listen on; 0 takes a free one and prints it."
    )
    models: str = Field(
        "models",
        description="The folder with the model files, or an address such as s3://bucket/models, "
        "of which a copy is made.",
    )
    api_keys: SecretStr | None = Field(
        None,
        description="Who may ask, separated by commas: NAME:sha256:HEX, as `python -m service key "
        "NAME` prints it; NAME@100:... for 100 images per second.",
    )
    api_keys_file: Path | None = Field(
        None,
        description="A file with more of them, one in each line, read again on a reload.",
    )
    allow_anonymous: bool = Field(
        False,
        description="Listen for other machines even without an API key: all who reach it may ask.",
    )
    rate_limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None,
        description="Images per second for each API key that has no rate of its own [no limit].",
    )
    cors_origins: str | None = Field(
        None,
        description="Origins whose pages may ask from a browser, separated by commas, such as "
        "https://lab.example [none].",
    )
    device: Device = Field(
        "auto",
        description="cuda refuses to start where CUDA cannot be had; auto then takes the CPU and "
        "says why.",
    )
    threads: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Images are computed on this many threads, of each worker. More than there are "
        "cores makes everything slower. Left out: the cores that the container or affinity allows.",
    )
    default_model: str | None = Field(
        None,
        description="Unconditional model of a request that names none [the first by name].",
    )
    default_conditional_model: str | None = Field(
        None,
        description="Conditional model of a request that names none [the first by name].",
    )
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        1,
        description="Processes, each with models, threads and a queue of its own. One is right up "
        "to a dozen cores or so, and on CUDA.",
    )
    max_queue: Annotated[int, Field(ge=256, le=1_000_000)] = Field(
        4096,
        description="Images that may wait or be under way; a request that does not fit is told "
        "when to try again (429). More lets requests wait longer before they are refused.",
    )
    max_wait: Annotated[float, Field(gt=0)] = Field(
        0.5,
        description="Seconds that an image may have to wait until it is begun; a request for which "
        "that is longer is told when to try again (429). More makes a busy server slower for all "
        "instead of refusing some.",
    )
    timeout: Annotated[float, Field(gt=0)] = Field(
        30,
        description="Seconds until a request that is not done is given up (504); of a stream, each "
        "of its batches, and a reader that takes nothing; and for a request to come in.",
    )
    stall: Annotated[float, Field(gt=0)] = Field(
        10,
        description="Seconds in one batch after which its thread is taken to hang: what it was at "
        "fails, and another thread takes over. A batch takes well under a second.",
    )
    max_images: Annotated[int, Field(ge=1, le=65536)] = Field(
        1024,
        description="Most images in one answer that is held in memory whole (JSON, PNG, GIF). A "
        "high limit lets one request take memory and time from all others.",
    )
    max_set: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        10_000_000,
        description="Most images in one set that is streamed (zip, npy); what comes after is asked "
        "for with offset. A low limit keeps one request from computing for days.",
    )

    max_model_mb: Annotated[int, Field(ge=1, le=65536)] = Field(
        512,
        description="Megabytes of a model file; a larger one is refused. To try one out may take "
        "eight times as much memory, and 2 GB.",
    )
    max_streams: Annotated[int, Field(ge=1, le=10_000)] = Field(
        64,
        description="Sets that are sent at a time, by each worker.",
    )
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        4096,
        description="Connections that are open at a time, to each worker; beyond that, those give "
        "way that have been at their request the longest.",
    )
    linger: Annotated[float, Field(ge=0)] = Field(
        1,
        description="Seconds after SIGTERM in which new requests are still taken, until whoever "
        "sends them has seen that /readyz answers 503.",
    )
    drain: Annotated[float, Field(ge=0)] = Field(
        30,
        description="Seconds after that in which what is under way may come to its end.",
    )
    log_format: LogFormat = Field("text", description="json has one object in each line.")
    log_requests: bool = Field(
        False, description="Log every request, not only those that fail for reasons of ours."
    )

    @property
    def max_model_bytes(self) -> int:
        return self.max_model_mb * 1024**2

    @property
    def origins(self) -> list[str]:
        return [origin.strip() for origin in (self.cors_origins or "").split(",") if origin.strip()]

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        if self.max_images > self.max_queue:
            raise ValueError(
                f"max_images ({self.max_images}) is above max_queue ({self.max_queue}): such a "
                "request could never be answered"
            )
        return self


def to_environment(settings: Settings) -> None:
    """Leave ``settings`` where other processes find them."""
    for name, value in settings.model_dump(exclude_none=True).items():
        plain = value.get_secret_value() if isinstance(value, SecretStr) else value
        os.environ[f"{PREFIX}{name.upper()}"] = str(plain)


def check_environment() -> None:
    """Raise ``StartupError`` for a ``FIGMENT_*`` variable that is no setting.

    Ignored, a misspelt one would do nothing, and one for another release might be relied on.
    """
    known = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in (*known, CLIENT_KEY):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise StartupError(f"{name} is not a setting: {hint}There are: {', '.join(known)}")
