"""A server that keeps things on a shelf: one line per command, then as many bytes as the line says.

PUT name size new|any, GET name start length|-, DEL name, LST; answers are `OK size` and bytes, or `NO reason`.
"""

from __future__ import annotations

import socketserver
import threading
import time


class Shelf(socketserver.ThreadingTCPServer):
    """Listens on loopback; `things` holds bytes and when they came (ns since 1970)."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Conversation)
        self.things: dict[str, tuple[bytes, int]] = {}
        self.lock = threading.Lock()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Conversation(socketserver.StreamRequestHandler):
    server: Shelf

    def handle(self) -> None:
        while line := self.rfile.readline(4096):
            verb, *words = line.decode().split()
            answer = getattr(self, f"do_{verb.lower()}")(*words)
            if isinstance(answer, bytes):
                self.wfile.write(b"OK %d\n" % len(answer) + answer)
            else:
                self.wfile.write(f"NO {answer}\n".encode())

    def do_put(self, name: str, size: str, how: str) -> bytes | str:
        data = self.rfile.read(int(size))
        if len(data) < int(size):
            return "incomplete"  # nobody hears it, but nothing is kept
        with self.server.lock:  # what makes `new` decide races
            if how == "new" and name in self.server.things:
                return "taken"
            self.server.things[name] = (data, time.time_ns())
        return b""

    def do_get(self, name: str, start: str, length: str) -> bytes | str:
        if name not in self.server.things:
            return "absent"
        data, _ = self.server.things[name]
        end = len(data) if length == "-" else int(start) + int(length)
        return data[int(start) : end] if int(start) <= len(data) and end <= len(data) else "range"

    def do_del(self, name: str) -> bytes:
        with self.server.lock:
            self.server.things.pop(name, None)
        return b""

    def do_lst(self) -> bytes:
        with self.server.lock:
            rows = [f"{name} {len(data)} {at}\n" for name, (data, at) in self.server.things.items()]
        return "".join(rows).encode()
