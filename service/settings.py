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
OF_THE_CLIENT = ("FIGMENT_API_KEY", "FIGMENT_SERVER")
"""Variables of the client: the key that it sends, and the server's URL; not settings."""
Device = Literal["auto", "cuda", "cpu"]
LogFormat = Literal["text", "json"]
MAX_SECONDS = 1_000_000
"""Twelve days. Longer than any use, and within what timers of threads and event loops accept."""
Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS)]
PositiveSeconds = Annotated[float, Field(gt=0, le=MAX_SECONDS)]


class Settings(BaseSettings):
    """Settings: ``port`` is ``FIGMENT_PORT`` and ``--port``, and the option wins."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Any address beyond this machine, such as 0.0.0.0, "
        "requires API keys or --allow-anonymous.",
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8000, description="Port to listen on. 0 takes a free port and prints it."
    )
    models: str = Field(
        "models",
        description="Folder with NAME/VERSION/model.onnx, or a URL such as s3://bucket/models, "
        "which is copied to a temporary folder.",
    )
    api_keys: SecretStr | None = Field(
        None,
        description="Accepted API keys, separated by commas: NAME:sha256:HEX, as `python -m "
        "service key NAME` prints it; NAME@100:sha256:HEX for 100 images per second.",
    )
    api_keys_file: Path | None = Field(
        None,
        description="File with more API keys, one per line. A reload reads it again.",
    )
    allow_anonymous: bool = Field(
        False,
        description="Accept requests without an API key from every machine that can connect.",
    )
    rate_limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None,
        description="Images per second for each API key that has no rate limit of its own. Without "
        "keys, one limit for all clients together [no limit].",
    )
    cors_origins: str | None = Field(
        None,
        description="Origins, separated by commas, whose web pages may send requests from a "
        "browser, such as https://lab.example [none].",
    )
    device: Device = Field(
        "auto",
        description="cuda refuses to start without CUDA. auto falls back to the CPU and logs why. "
        "cpu never uses a GPU.",
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None,
        description="Worker threads that compute images, in each worker process. More threads than "
        "cores are slower [the cores that the container or the CPU affinity allows].",
    )
    default_model: str | None = Field(
        None,
        description="Unconditional model for requests that name none [the first by name].",
    )
    default_conditional_model: str | None = Field(
        None,
        description="Conditional model for requests that name none [the first by name].",
    )
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        1,
        description="Worker processes, each with its own models, threads and queue. Use more than "
        "one beyond about a dozen cores. Must be 1 on CUDA.",
    )
    max_queue: Annotated[int, Field(ge=256, le=1_000_000)] = Field(
        4096,
        description="Images queued or running in each worker process. A request that does not fit "
        "is rejected (429). A higher value lets requests wait longer.",
    )
    max_wait: PositiveSeconds = Field(
        0.5,
        description="Longest expected wait in the queue, in seconds. A request that would start "
        "later is rejected (429). A higher value trades rejections for latency.",
    )
    timeout: PositiveSeconds = Field(
        30,
        description="Request timeout in seconds (504). Also the limit for receiving a request, for "
        "each batch of a stream, and for a client that stops reading.",
    )
    hang_timeout: PositiveSeconds = Field(
        10,
        description="Longest run of one batch, in seconds; normal is well under a second. Beyond "
        "it, the batch counts as hung: its requests get 500, and the process ends with status 70.",
    )
    max_images: Annotated[int, Field(ge=1, le=65536)] = Field(
        1024,
        description="Most images in one answer that is held in memory (JSON, PNG, GIF, tensors). "
        "A high limit lets one request take memory and time from all others.",
    )
    max_set: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        10_000_000,
        description="Most images in one streamed set (zip, npy ...); clients fetch the rest with "
        "offset. A low limit keeps one request from computing for days.",
    )
    max_model_mb: Annotated[int, Field(ge=1, le=65536)] = Field(
        512,
        description="Largest accepted model file, in MiB. The check of a file may take eight times "
        "as much memory plus 2 GB.",
    )
    max_streams: Annotated[int, Field(ge=1, le=10_000)] = Field(
        64,
        description="Sets streamed at the same time by each worker process; more are rejected "
        "(429).",
    )
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        4096,
        description="Open connections of each worker process. Requests of further connections are "
        "answered 503.",
    )
    shutdown_delay: Seconds = Field(
        1,
        description="Seconds after SIGTERM in which new requests are still accepted while /readyz "
        "answers 503, so that load balancers notice.",
    )
    drain: Seconds = Field(
        30,
        description="Seconds after that delay for accepted requests and streams to finish.",
    )
    log_format: LogFormat = Field("text", description="json writes one object per line.")
    log_requests: bool = Field(
        False, description="Log every request, not only those with a status of 500 or more."
    )

    @property
    def max_model_bytes(self) -> int:
        return self.max_model_mb * 1024**2

    @property
    def origins(self) -> list[str]:
        return [origin.strip() for origin in (self.cors_origins or "").split(",") if origin.strip()]

    @model_validator(mode="after")
    def _check_limits(self) -> Settings:
        if self.max_images > self.max_queue:
            raise ValueError(
                f"max_images ({self.max_images}) is above max_queue ({self.max_queue}): such a "
                "request could never be answered"
            )
        return self


def check_environment() -> None:
    """Raise ``StartupError`` for an unknown ``FIGMENT_*`` variable.

    Ignored, a misspelled one would have no effect, and one of another release could be relied on.
    """
    known = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in (*known, *OF_THE_CLIENT):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise StartupError(f"{name} is not a setting: {hint}There are: {', '.join(known)}")
