"""Licences by the names that the Hugging Face hub has for them."""

from __future__ import annotations

import re

KNOWN = re.compile(
    r"mit|apache-2\.0|cc0-1\.0|cc-by-(2\.0|2\.5|3\.0|4\.0)|cc-by-sa-(3\.0|4\.0)|cc-by-nd-4\.0|"
    r"cc-by-nc-(2\.0|3\.0|4\.0)|cc-by-nc-nd-(3\.0|4\.0)|cc-by-nc-sa-(2\.0|3\.0|4\.0)|unknown"
)
"""Licences that data often have."""


def hub_licence(text: str) -> str:
    """Name of the licence at the start of ``text``, such as ``cc-by-4.0``; else ``other``."""
    name = re.sub(r"\s+", "-", re.split(r"[(:,;]", text.lower())[0].strip())
    return name if KNOWN.fullmatch(name) else "other"
