"""Worker processes without heartbeats. They import this module, and nothing else of the tests."""

from __future__ import annotations

import socket
import time

from service.server.workers import Worker


class SilentWorker(Worker):
    """Sends no heartbeat."""

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        time.sleep(60)


class HungWorker(SilentWorker):
    """Sends one heartbeat, and none after."""

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        self.child_conn.send(self.child_conn.recv())
        super().target(sockets)
