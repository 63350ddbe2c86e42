"""A TCP proxy on loopback that breaks connections at a chosen byte."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class CuttingProxy:
    """Forwards to a port. `cut_up` and `cut_down` reset the connection that carries that many bytes that way.

    A cut happens once; then connections are whole again.
    """

    def __init__(self, upstream: int) -> None:
        self.cut_up: int | None = None
        self.cut_down: int | None = None
        self.connections = 0
        self.cuts = 0
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        self._thread.join()

    def drop(self) -> None:
        """Reset every connection there is now."""
        for pair in self._pairs:
            self._reset(*pair)
        self._pairs.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._upstream))
            self.connections += 1
            self._pairs.append((client, server))
            for source, target, way in ((client, server, "cut_up"), (server, client, "cut_down")):
                threading.Thread(target=self._forward, args=(source, target, way), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, way: str) -> None:
        carried = 0
        with suppress(OSError):
            while data := source.recv(16384):
                carried += len(data)
                limit: int | None = getattr(self, way)
                if limit is not None and carried >= limit:
                    setattr(self, way, None)
                    self.cuts += 1
                    self._reset(source, target)
                    return
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    @staticmethod
    def _reset(*sockets: socket.socket) -> None:
        for one in sockets:
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RDWR)
            one.close()
