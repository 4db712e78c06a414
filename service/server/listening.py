"""Socket filter that drops new connections, so that a listening socket closes without resets.

Closing a listening socket resets the connections that the kernel has established and the server
has not accepted. Their clients may have sent a request already. The filter makes the kernel
establish no more; the server then accepts what is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import sys

ACCEPT_SECONDS = 0.2
"""Time for the server to accept the last connections and receive their requests."""
SO_ATTACH_FILTER = 26
"""From Linux's ``asm-generic/socket.h``; Python has no name for it."""
# Classic BPF: drop segments with the SYN flag, which open a connection; pass all others.
FILTER = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the flags, byte 13 of the TCP header
        (0x45, 0, 1, 0x02),  # if SYN is set
        (0x06, 0, 0, 0),  # then drop the segment
        (0x06, 0, 0, 0xFFFFFFFF),  # else keep all of it
    )
)


def stop_accepting(listener: int) -> None:
    """Make the kernel establish no more connections on this file descriptor.

    A client's kernel gets no answer to its SYN and repeats it after a second; by then the
    connection is refused, or another process listens. Without Linux or without the permission,
    nothing happens, and connections may be reset at the end.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(FILTER, len(FILTER))
    described = struct.pack("HP", len(FILTER) // 8, ctypes.addressof(program))
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(listener)) as same:
        same.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)
