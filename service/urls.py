"""URLs as they may be shown."""

from __future__ import annotations

import re


def without_passwords(text: str) -> str:
    """``text`` with ``***`` for the password in each URL in it: ``ftp://user:***@host``.

    A name alone stays: ``abfs://container@account`` has one that is no secret.
    """
    return re.sub(r"(\w://[^/?#\s:@]*):[^/?#\s]*@", r"\1:***@", text)
