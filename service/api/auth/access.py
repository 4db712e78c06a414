"""Who asks: the key of each request, and what it may have."""

from __future__ import annotations

import functools
import ipaddress
import logging
import re
from dataclasses import dataclass

from fastapi import Request
from prometheus_client import Counter
from starlette.types import Scope

from service.api.auth import api_keys
from service.api.auth.api_keys import Key
from service.api.auth.rate_limit import RateLimiter
from service.errors import MisdirectedRequest, StartupError
from service.observability import metrics
from service.settings import Settings

PROBES = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
OPEN = (*PROBES, "/", "/docs", "/openapi.json")
"""What takes no key: probes and pages. They tell what is served, and nothing of what is made."""
OPEN_FOLDERS = ("/studio/", "/static-offline-docs/")
SCOPE = "figment.caller"
LARGEST_BATCH = 64
ADDRESS = re.compile(rb"[0-9.]+|\[[0-9a-fA-F:.]+\]?")
"""Of the internet protocol, without the port."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Client:
    """``name`` of its key, None for one without; ``allowance`` is None where there is no limit."""

    name: str | None
    allowance: RateLimiter | None

    def charge(self, images: int) -> None:
        """So many are about to be computed. Raises ``RateExceeded``."""
        if self.allowance is not None:
            self.allowance.charge(images)
        self._images.inc(images)

    def charge_or_wait(self, images: int) -> float:
        """The same in the course of something long: 0, or the seconds until they may be."""
        seconds = 0.0 if self.allowance is None else self.allowance.charge_or_wait(images)
        if not seconds:
            self._images.inc(images)
        return seconds

    @functools.cached_property
    def _images(self) -> Counter:
        return metrics.KEY_IMAGES.labels(self.name or "none")


class AccessControl:
    """Lets in who has a key; everyone where there are none."""

    def __init__(self, settings: Settings) -> None:
        """Raises ``StartupError`` for keys that are none, or where the service would lie open."""
        self._settings = settings
        self._host = settings.host
        self._callers: dict[Key, Client] = {}
        self._anyone = Client(None, self._allowance(settings.rate_limit))
        self.reload()
        if not (self.needs_key or settings.allow_anonymous or _is_loopback(settings.host)):
            raise StartupError(
                f"FIGMENT_HOST is {settings.host}, which lets other machines in, and there is no "
                "API key. Set FIGMENT_API_KEYS (`python -m service key NAME` makes one), or, if "
                "everyone who can reach it may use it, FIGMENT_ALLOW_ANONYMOUS=true"
            )
        if not (self.needs_key or _is_loopback(settings.host)):
            log.warning("there is no API key: whoever reaches the service may ask")

    def reload(self) -> None:
        """Read the keys anew, as their file may have changed. Raises ``StartupError``."""
        settings = self._settings
        given = settings.api_keys
        entries = None if given is None else given.get_secret_value()
        keyring = api_keys.read(entries, settings.api_keys_file, settings.rate_limit)
        for key in keyring.keys:
            if key.plain:
                log.warning("the API key %r is given as it is; its hash is enough", key.name)
        self._keyring = keyring
        # Whose key is as it was has spent what it has spent.
        self._callers = {
            key: self._callers.get(key) or Client(key.name, self._allowance(key.rate))
            for key in keyring.keys
        }

    @property
    def needs_key(self) -> bool:
        """There are keys, so whoever asks must have one."""
        return bool(self._keyring.keys)

    @property
    def by_name(self) -> dict[str, api_keys.Key]:
        """All keys."""
        return {key.name: key for key in self._keyring.keys}

    def check_host(self, host: bytes) -> None:
        """Reject Host headers that a DNS-rebinding page could use: raises ``MisdirectedRequest``.

        Only without API keys. IP addresses and single-label names such as ``localhost`` pass.
        """
        if self.needs_key or self._settings.allow_anonymous:
            return
        name = host.rpartition(b":")[0] or host
        asked = name[:80].decode("latin-1")
        if b"." in name and not ADDRESS.fullmatch(name) and asked != self._host:
            raise MisdirectedRequest(
                f"this service is for this machine, and was asked as {asked}. "
                "Set FIGMENT_API_KEYS, or FIGMENT_ALLOW_ANONYMOUS=true"
            )

    def admit(self, path: str, authorization: bytes) -> Client:
        """Raises ``Unauthorized``."""
        if not self.needs_key or path in OPEN or path.startswith(OPEN_FOLDERS):
            return self._anyone
        return self._callers[self._keyring.find(authorization.decode("latin-1"))]

    def _allowance(self, rate: int | None) -> RateLimiter | None:
        if rate is None:
            return None
        # Each worker grants its share; at once, as much as one answer may hold, or one batch.
        share = max(1, round(rate / self._settings.workers))
        return RateLimiter(share, max(share, self._settings.max_images, LARGEST_BATCH))


def client_of(request: Request) -> Client:
    caller: Client = request.scope[SCOPE]
    return caller


def set_client(scope: Scope, caller: Client) -> None:
    scope[SCOPE] = caller


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may mean any address
        return False
