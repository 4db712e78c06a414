"""URLs as they may be shown."""

from __future__ import annotations

import re
from urllib.parse import unquote

_PASSWORD = re.compile(r"(?<=\w://)([^/?#\s:@]*):([^/?#\s]*)@")


def without_passwords(text: str, url: str = "") -> str:
    """``text`` with ``***`` for the password in each URL in it: ``ftp://user:***@host``.

    That of ``url`` is taken out wherever it stands: libraries quote it by itself. A name alone
    stays: ``abfs://container@account`` has one that is no secret.
    """
    text = _PASSWORD.sub(r"\1:***@", text)
    for _, password in _PASSWORD.findall(url):
        for secret in filter(None, (password, unquote(password))):
            text = text.replace(secret, "***")
    return text
