"""Request bodies: bounded in size, not compressed."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Receive, Scope

from service.errors import BodyEncoded, BodyTooLarge, ClientDisconnected


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """Read a whole request body.

    Raises ``BodyTooLarge`` once more than ``max_bytes`` are declared or received, without reading
    further, and ``ClientDisconnected``.
    """
    too_large = BodyTooLarge(f"the body may have at most {max_bytes} bytes")
    if _declared_bytes(scope) > max_bytes:
        raise too_large
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected("the client has disconnected")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > max_bytes:
            raise too_large
        more = message.get("more_body", False)
    return b"".join(parts)


def reject_encoded_body(headers: Mapping[str, str]) -> None:
    """Raise ``BodyEncoded`` for a compressed body (RFC 9110, 8.4)."""
    encoding = headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise BodyEncoded(
            f"the body has Content-Encoding {encoding[:80]}, which is not supported: send it "
            "uncompressed"
        )


def _declared_bytes(scope: Scope) -> int:
    """``Content-Length``, or 0 without a valid one."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
