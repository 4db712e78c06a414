"""The end of a socket that listens.

Closing it resets the connections that the kernel has made and nobody has accepted yet. Their
callers hold them for open, and may have sent a request. So the kernel is told first to make no
more, and what it has made is accepted.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import sys

LAST = 0.2
"""Seconds in which the last connections are accepted, and their requests come in."""
SO_ATTACH_FILTER = 26
"""Linux's; Python has no name for it."""
# Drops what asks for a connection (its SYN flag is set), and lets all else by.
FILTER = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # take the byte with the flags, the 14th of the TCP header
        (0x45, 0, 1, 0x02),  # if SYN is set
        (0x06, 0, 0, 0),  # then keep nothing
        (0x06, 0, 0, 0xFFFFFFFF),  # else all
    )
)


def stop_accepting(listener: int) -> None:
    """Have the kernel make no more connections for the socket with this file descriptor.

    Who asks for one is not answered, so its system asks again after a second, and finds nobody, or
    whoever listens by then. Where that cannot be done, connections may be reset in the end.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(FILTER, len(FILTER))
    described = struct.pack("HP", len(FILTER) // 8, ctypes.addressof(program))
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(listener)) as same:
        same.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)
