"""A proxy that cuts connections, as networks, load balancers and restarted servers do."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit


class Cutting:
    """Passes on to the server at ``target``; ``cuts`` counts the connections that it has cut."""

    def __init__(self, target: str, after: Sequence[int]) -> None:
        """The first connections are cut after so many bytes of the answer, the others not."""
        self.target = target
        self._after = iter(after)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(caller,), daemon=True).start()

    def _pass_on(self, caller: socket.socket) -> None:
        address = urlsplit(self.target)
        try:
            server = socket.create_connection((address.hostname, address.port))
        except ConnectionRefusedError:
            caller.close()
            return
        with caller, server:
            threading.Thread(target=_copy, args=(caller, server), daemon=True).start()
            limit = next(self._after, None)
            passed = 0
            with contextlib.suppress(OSError):
                while data := server.recv(4096):
                    if limit is not None and passed + len(data) > limit:
                        caller.sendall(data[: limit - passed])
                        self.cuts += 1
                        break
                    caller.sendall(data)
                    passed += len(data)
            for end in (caller, server):  # to close them would not wake who waits for the other way
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(4096):
            target.sendall(data)


@contextmanager
def cutting(target: str, after: Sequence[int]) -> Iterator[Cutting]:
    proxy = Cutting(target, after)
    try:
        yield proxy
    finally:
        proxy.close()
