"""API keys: who may ask.

Only hashes are kept. A key that ``make`` has made is 256 random bits, too many to be found by
trying, so a plain SHA-256 is enough.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from service.errors import StartupError, Unauthorized

PREFIX = "figment_"
"""What keys begin with, so that whoever finds one knows what it opens."""
BYTES = 32
MIN_PLAIN_CHARACTERS = 8
"""Characters of a key that is given as it is: a word that was left over is not to open anything."""
HEX = re.compile("[0-9a-fA-F]{64}")
ENTRY = re.compile(
    r"(?:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:@(?P<rate>[1-9][0-9]{0,8}))?:)?"
    r"(?:sha256:(?P<hash>[0-9a-fA-F]{64})|(?P<plain>[!\"$-+\--9;-~]+))"
)
"""``NAME:sha256:HEX``, with ``@RATE`` behind the name or without, or the key itself."""


@dataclass(frozen=True)
class Key:
    """``name`` is told in logs and metrics; ``rate`` is in images per second, None for no limit."""

    name: str
    digest: bytes
    rate: int | None
    plain: bool = False
    """It was not given as a hash."""


class ApiKeys:
    """The keys that open the service; without any it is open."""

    def __init__(self, keys: Iterable[Key]) -> None:
        """Raises ``StartupError`` where two are the same, or have the same name."""
        self.keys = tuple(keys)
        for what in ("name", "digest"):
            values = [getattr(key, what) for key in self.keys]
            for key in self.keys:
                if values.count(getattr(key, what)) > 1:
                    raise StartupError(f"two API keys have the {what} of {key.name!r}")

    def find(self, authorization: str) -> Key:
        """The key in an ``Authorization`` header. Raises ``Unauthorized``."""
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise Unauthorized("send an API key: Authorization: Bearer KEY")
        digest = hashlib.sha256(given.strip().encode("utf-8", "surrogatepass")).digest()
        # All are compared, each in constant time: how long it takes tells nothing.
        found = [key for key in self.keys if hmac.compare_digest(key.digest, digest)]
        if not found:
            raise Unauthorized("there is no such API key")
        return found[0]


def make(name: str, rate: int | None = None) -> tuple[str, str]:
    """A new key, and the entry with its hash that lets it in. Raises ``StartupError``."""
    key = PREFIX + secrets.token_urlsafe(BYTES)
    limit = "" if rate is None else f"@{rate}"
    entry = f"{name}{limit}:sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    parse([entry], None)
    return key, entry


def read(entries: str | None, file: Path | None, rate: int | None) -> ApiKeys:
    """The keys in ``entries``, separated by commas, and those in ``file``, one in each line.

    ``rate`` is for those that have none of their own. Raises ``StartupError``.
    """
    found = [part.strip() for part in (entries or "").split(",")]
    if file is not None:
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise StartupError(f"FIGMENT_API_KEYS_FILE {file} cannot be read: {error}") from error
        found += [line.partition("#")[0].strip() for line in lines]
    keys = parse([entry for entry in found if entry], rate)
    if not keys and (entries is not None or file is not None):  # one that was lost opens nothing
        raise StartupError("there is no API key in FIGMENT_API_KEYS or FIGMENT_API_KEYS_FILE")
    return ApiKeys(keys)


def parse(entries: Iterable[str], rate: int | None) -> list[Key]:
    """Raises ``StartupError`` for what is no entry, without repeating it: it may be a key."""
    keys = []
    for number, entry in enumerate(entries, 1):
        match = ENTRY.fullmatch(entry)
        if match is None:
            raise StartupError(
                f"API key {number} is not of the form NAME:sha256:HEX, with @RATE behind the name "
                "or without; `python -m service key NAME` makes one"
            )
        plain = match["plain"]
        if plain and (
            len(plain) < MIN_PLAIN_CHARACTERS or HEX.fullmatch(plain) or match["name"] == "sha256"
        ):
            raise StartupError(
                f"API key {number}: what stands there for the key is no key: it is shorter than "
                f"{MIN_PLAIN_CHARACTERS} characters, or a hash without a name; NAME:sha256:HEX is "
                "what is meant"
            )
        digest = hashlib.sha256(plain.encode()).digest() if plain else bytes.fromhex(match["hash"])
        own = match["rate"]
        keys.append(
            Key(match["name"] or f"key-{number}", digest, int(own) if own else rate, bool(plain))
        )
    return keys
