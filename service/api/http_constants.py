"""Headers and limits that the HTTP server, the gateway and Ray's proxies have in common."""

from __future__ import annotations

SECURITY_HEADERS = [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")]
"""For every answer."""
NOTHING_ACTIVE = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
"""For answers that are data: a browser that shows one runs and loads nothing."""
MAX_RAW = 8 << 20
"""Bytes of a request as they come: a body in chunks of one byte has six times its size."""
PROBLEM_MEDIA_TYPE = "application/problem+json"
"""Of errors (RFC 9457)."""
