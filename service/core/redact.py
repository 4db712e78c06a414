"""Remove passwords from URLs before they are logged or shown."""

from __future__ import annotations

import re
from urllib.parse import unquote

_PASSWORD = re.compile(r"(?<=\w://)([^/?#\s:@]*):([^/?#\s]*)@")


def without_passwords(text: str, url: str = "") -> str:
    """Replace the password of each URL in ``text`` by ``***``: ``ftp://user:***@host``.

    The password of ``url`` is replaced wherever it occurs, because libraries quote it by itself. A
    user name without a password stays: in ``abfs://container@account`` it is not a secret.
    """
    text = _PASSWORD.sub(r"\1:***@", text)
    for _, password in _PASSWORD.findall(url):
        for secret in filter(None, (password, unquote(password))):
            text = text.replace(secret, "***")
    return text
