"""A DNS server on this machine; tests change the addresses that it returns."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

HEADER_BYTES = 12
ANSWER, NO_ERROR = 0x8000, 0x0100
A = 1
TTL_SECONDS = 1


class DnsServer:
    """Answers every A query with ``addresses``, whatever the name; ``queries`` counts them."""

    def __init__(self, addresses: Iterable[str]) -> None:
        self.addresses = list(addresses)
        self.queries = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(4096)
            if not query:
                return
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        (number,) = struct.unpack_from("!H", query)
        end = query.index(0, HEADER_BYTES) + 1  # of the name; type and class follow
        (kind,) = struct.unpack_from("!H", query, end)
        found = list(self.addresses) if kind == A else []
        self.queries += kind == A
        answer = struct.pack("!6H", number, ANSWER | NO_ERROR, 1, len(found), 0, 0)
        answer += query[HEADER_BYTES : end + 4]
        for address in found:
            packed = ipaddress.IPv4Address(address).packed
            # The name is a pointer to the one in the question.
            answer += (
                struct.pack("!HHHIH", 0xC000 | HEADER_BYTES, A, 1, TTL_SECONDS, len(packed))
                + packed
            )
        return answer

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()


@contextmanager
def dns_server(*addresses: str) -> Iterator[DnsServer]:
    server = DnsServer(addresses)
    try:
        yield server
    finally:
        server.close()
