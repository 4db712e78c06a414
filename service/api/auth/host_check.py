"""Protection against DNS rebinding for a service without API keys.

starlette's ``TrustedHostMiddleware`` cannot let all IP addresses and single-label names pass.
"""

from __future__ import annotations

import ipaddress
import re

from service.errors import MisdirectedRequest

IP_ADDRESS = re.compile(rb"[0-9.]+|\[[0-9a-fA-F:.]+\]?")
"""IP address in a Host header, without the port."""


def check_host(host: bytes, own_name: str) -> None:
    """Raise ``MisdirectedRequest`` for a Host header that a DNS-rebinding page could use.

    IP addresses, single-label names such as ``localhost``, and ``own_name`` pass.
    """
    name = host.rpartition(b":")[0] or host
    shown = name[:80].decode("latin-1")
    if b"." in name and not IP_ADDRESS.fullmatch(name) and shown != own_name:
        raise MisdirectedRequest(
            f"without API keys, this service accepts requests to this machine only, not to "
            f"{shown}. Set FIGMENT_API_KEYS, or FIGMENT_ALLOW_ANONYMOUS=true"
        )


def names_this_machine(host: bytes) -> bool:
    """True for a Host header such as ``localhost`` or ``127.0.0.1:8000``.

    Python's ``http.client`` adds such a header to one that a program sets itself. Which of them a
    proxy took does not matter, so these may be repeated.
    """
    return is_loopback(re.sub(r":\d*$", "", host.decode("latin-1")).strip("[]"))


def is_loopback(host: str) -> bool:
    """True if a server on ``host`` is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may resolve to any address
        return False
