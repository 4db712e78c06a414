"""Headers and limits shared by the HTTP server, the gateway and Ray's proxies."""

from __future__ import annotations

SECURITY_HEADERS = [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")]
"""Headers of every answer."""
NOTHING_ACTIVE = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
"""Header of answers that are data: a browser that shows one runs and loads nothing."""
MAX_RAW = 8 << 20
"""Bytes of a request on the wire: a body in chunks of one byte takes six times its size."""
PROBLEM_MEDIA_TYPE = "application/problem+json"
"""Media type of errors (RFC 9457)."""
