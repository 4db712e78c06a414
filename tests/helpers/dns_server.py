"""A name server on this machine that knows one name, whose addresses change."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

HEADER = 12
"""Bytes in front of a question."""
ANSWER, NO_ERROR = 0x8000, 0x0100
A = 1
SECONDS = 1
"""For which an answer is good."""


class Names:
    """Answers questions for IPv4 addresses with all of ``addresses``, whatever the name."""

    def __init__(self, addresses: Iterable[str]) -> None:
        self.addresses = list(addresses)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            asked, caller = self._socket.recvfrom(4096)
            if not asked:
                return
            self._socket.sendto(self._answer(asked), caller)

    def _answer(self, asked: bytes) -> bytes:
        (number,) = struct.unpack_from("!H", asked)
        end = asked.index(0, HEADER) + 1  # of the name; type and class follow
        (kind,) = struct.unpack_from("!H", asked, end)
        found = list(self.addresses) if kind == A else []
        answer = struct.pack("!6H", number, ANSWER | NO_ERROR, 1, len(found), 0, 0)
        answer += asked[HEADER : end + 4]
        for address in found:
            packed = ipaddress.IPv4Address(address).packed
            # The name is the one that stands at the question.
            answer += struct.pack("!HHHIH", 0xC000 | HEADER, A, 1, SECONDS, len(packed)) + packed
        return answer

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()


@contextmanager
def names(*addresses: str) -> Iterator[Names]:
    server = Names(addresses)
    try:
        yield server
    finally:
        server.close()
