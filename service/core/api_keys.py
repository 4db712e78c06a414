"""API keys: reading, creating and comparing them.

Only hashes are kept. A key from ``make`` is 256 random bits, too many for a brute-force search,
so a plain SHA-256 is enough.
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
"""Prefix of every key, so that people and secret scanners recognise one."""
SECRET_BYTES = 32
MIN_PLAIN_CHARACTERS = 8
"""Length of a key in plain text, so that no leftover word of a list becomes a key."""
MAX_FILE_BYTES = 1 << 20
"""Limit of the keys file: enough for 8,000 keys."""
HEX = re.compile("[0-9a-fA-F]{64}")
ENTRY = re.compile(
    r"(?:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:@(?P<rate>[1-9][0-9]{0,8}))?:)?"
    r"(?:sha256:(?P<hash>[0-9a-fA-F]{64})|(?P<plain>[!\"$-+\--9;-~]+))"
)
"""``NAME:sha256:HEX`` or ``NAME@RATE:sha256:HEX``, or the key in plain text instead of a hash."""


@dataclass(frozen=True)
class Key:
    """An API key. Logs and metrics show its ``name``.

    ``rate`` is in images per second, None without a limit.
    """

    name: str
    digest: bytes
    rate: int | None
    plain: bool = False
    """True if it was given in plain text, not as a hash."""


class ApiKeys:
    """Set of API keys; empty if the service needs none."""

    def __init__(self, keys: Iterable[Key]) -> None:
        """Raises ``StartupError`` if two keys have the same name or hash."""
        self.keys = tuple(keys)
        for what in ("name", "digest"):
            first: dict[object, Key] = {}
            for key in self.keys:
                known = first.setdefault(getattr(key, what), key)
                if known is not key:
                    raise StartupError(f"two API keys have the {what} of {known.name!r}")

    def find(self, authorization: str) -> Key:
        """The key in an ``Authorization`` header. Raises ``Unauthorized``."""
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthorized("send an API key: Authorization: Bearer KEY")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogatepass")).digest()
        # Compare all, each in constant time, so that the duration reveals nothing.
        found = [each for each in self.keys if hmac.compare_digest(each.digest, digest)]
        if not found:
            raise Unauthorized("there is no such API key")
        return found[0]


def make(name: str, rate: int | None = None) -> tuple[str, str]:
    """Create a key. Returns it and its entry for ``FIGMENT_API_KEYS``. Raises ``StartupError``."""
    key = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    limit = "" if rate is None else f"@{rate}"
    entry = f"{name}{limit}:sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    parse([entry], None)
    return key, entry


def read(entries: str | None, file: Path | None, rate: int | None) -> ApiKeys:
    """Read keys from ``entries``, separated by commas, and from ``file``, one a line.

    ``rate`` is the limit of keys without their own. Raises ``StartupError``.
    """
    found = [part.strip() for part in (entries or "").split(",")]
    if file is not None:
        found += [line.partition("#")[0].strip() for line in _text_of(file).splitlines()]
    keys = parse([entry for entry in found if entry], rate)
    if not keys and (entries is not None or file is not None):  # a lost secret opens nothing
        raise StartupError("there is no API key in FIGMENT_API_KEYS or FIGMENT_API_KEYS_FILE")
    return ApiKeys(keys)


def _text_of(file: Path) -> str:
    where = f"FIGMENT_API_KEYS_FILE {file}"
    try:
        if not file.is_file():  # opening a pipe would block
            raise StartupError(f"{where} cannot be read: it is missing or not a regular file")
        with file.open("rb") as source:
            content = source.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise StartupError(f"{where} is larger than {MAX_FILE_BYTES} bytes")
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"{where} cannot be read: {error}") from error


def parse(entries: Iterable[str], rate: int | None) -> list[Key]:
    """Parse entries. The ``StartupError`` of an invalid one does not quote it: it may be a key."""
    keys = []
    for number, entry in enumerate(entries, 1):
        match = ENTRY.fullmatch(entry)
        if match is None:
            raise StartupError(
                f"API key {number} is not of the form NAME:sha256:HEX or NAME@RATE:sha256:HEX; "
                "`python -m service key NAME` makes one"
            )
        plain = match["plain"]
        if plain and (
            len(plain) < MIN_PLAIN_CHARACTERS or HEX.fullmatch(plain) or match["name"] == "sha256"
        ):
            raise StartupError(
                f"API key {number} is shorter than {MIN_PLAIN_CHARACTERS} characters, or a hash "
                "without a name; write NAME:sha256:HEX"
            )
        digest = hashlib.sha256(plain.encode()).digest() if plain else bytes.fromhex(match["hash"])
        own = match["rate"]
        keys.append(
            Key(match["name"] or f"key-{number}", digest, int(own) if own else rate, bool(plain))
        )
    return keys
