"""Access control: which client may send a request."""

from __future__ import annotations

import asyncio
import logging

from service.api.auth import host_check
from service.api.auth.rate_limit import Client, rate_limiter
from service.api.paths import is_public
from service.core import api_keys
from service.core.api_keys import ApiKeys, Key
from service.errors import StartupError
from service.settings import Settings

READ_SECONDS = 10.0
"""Longest time to read the keys again."""

log = logging.getLogger(__name__)


class AccessControl:
    """Admits clients with an API key; without any keys, all clients."""

    def __init__(self, settings: Settings) -> None:
        """Raises ``StartupError`` for invalid keys, and if others could connect without a key."""
        self._settings = settings
        self._clients: dict[Key, Client] = {}
        self._anonymous = Client(None, rate_limiter(settings.rate_limit, settings))
        self._lock = asyncio.Lock()
        self._use(self._read())
        local = host_check.is_loopback(settings.host)
        if not (self.requires_key or settings.allow_anonymous or local):
            raise StartupError(
                f"FIGMENT_HOST is {settings.host}, which other machines can reach, and there is no "
                "API key. Set FIGMENT_API_KEYS (`python -m service key NAME` makes one), or, if "
                "everyone who can reach it may use it, FIGMENT_ALLOW_ANONYMOUS=true"
            )
        if not (self.requires_key or local):
            log.warning("there is no API key: every client that reaches the service may use it")

    async def reload(self) -> None:
        """Read the keys again, as their file may have changed. Raises ``StartupError``.

        On a thread, as the disk may hang.
        """
        try:
            async with asyncio.timeout(READ_SECONDS), self._lock:  # the last to read wins
                self._use(await asyncio.to_thread(self._read))
        except TimeoutError:
            raise StartupError(
                f"FIGMENT_API_KEYS_FILE {self._settings.api_keys_file} was not read within "
                f"{READ_SECONDS:g} s"
            ) from None

    def _read(self) -> ApiKeys:
        settings = self._settings
        secret = settings.api_keys
        entries = None if secret is None else secret.get_secret_value()
        return api_keys.read(entries, settings.api_keys_file, settings.rate_limit)

    def _use(self, keys: ApiKeys) -> None:
        """Admit clients with ``keys``.

        An unchanged key keeps its rate limiter, so that a reload does not grant another burst.
        """
        for key in keys.keys:
            if key.plain:
                log.warning("the API key %r is given in plain text; its hash is enough", key.name)
        self._keys = keys
        self._clients = {
            key: self._clients.get(key) or Client(key.name, rate_limiter(key.rate, self._settings))
            for key in keys.keys
        }

    @property
    def requires_key(self) -> bool:
        """True if there are keys, so that every request needs one."""
        return bool(self._keys.keys)

    @property
    def keys_by_name(self) -> dict[str, Key]:
        return {key.name: key for key in self._keys.keys}

    def check_host(self, host: bytes) -> None:
        """Reject Host headers that a DNS-rebinding page could use: raises ``MisdirectedRequest``.

        Only without API keys, where such a page could read all answers through a browser here.
        """
        if not (self.requires_key or self._settings.allow_anonymous):
            host_check.check_host(host, self._settings.host)

    def admit(self, path: str, authorization: bytes) -> Client:
        """Client of a request. Raises ``Unauthorized``."""
        if not self.requires_key or is_public(path):
            return self._anonymous
        return self._clients[self._keys.find(authorization.decode("latin-1"))]
