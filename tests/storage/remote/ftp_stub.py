"""An FTP server that answers as a test tells it to, one client at a time."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_FIXED = {
    "USER": "331 Password?",
    "PASS": "230 In.",
    "TYPE": "200 Binary.",
    "OPTS": "200 Fine.",
    "QUIT": "221 Bye.",
    "MLST": "250-Facts\r\n type=dir; /\r\n250 End",
}
ENTRY = "type=file;size=3;modify=20260101000000; {}\r\n"


class FtpStub(socketserver.TCPServer):
    """Every directory holds `listing`, of which `sent` bytes are sent before the data connection is closed.

    `reply` is what is said then; without one the control connection is closed too, with None nothing is said.
    `answers` are those to single commands that differ from the usual; "" is the greeting.
    """

    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.listing = b""
        self.sent: int | None = None
        self.reply: str | None = "226 Transfer complete."
        self.answers: dict[str, str] = {}
        self.takes: int | None = None  # bytes of an upload; then it says `reply`, and closes the data connection
        self.asked: list[str] = []
        self.closing = threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Session(socketserver.StreamRequestHandler):
    server: FtpStub

    def handle(self) -> None:
        self._say(self.server.answers.get("", "220 Ready."))
        with socket.create_server(("127.0.0.1", 0)) as data:
            for line in self.rfile:
                command = line.decode().split()[0]
                self.server.asked.append(command)
                if command in self.server.answers:
                    self._say(self.server.answers[command])
                elif command == "PASV":
                    high, low = divmod(data.getsockname()[1], 256)
                    self._say(f"227 Entering passive mode (127,0,0,1,{high},{low})")
                elif command == "MLSD":
                    if not self._list(data):
                        return
                elif command == "STOR":
                    self._take(data)
                else:
                    self._say(_FIXED.get(command, "502 What?"))

    def _list(self, data: socket.socket) -> bool:
        """Whether the session goes on."""
        connection, _ = data.accept()
        with connection:
            self._say("150 Here it comes.")
            connection.sendall(self.server.listing[: self.server.sent])
        if self.server.reply is None:
            self.server.closing.wait()
        elif self.server.reply:
            self._say(self.server.reply)
        return bool(self.server.reply)

    def _take(self, data: socket.socket) -> None:
        connection, _ = data.accept()
        left = self.server.takes
        with connection:
            self._say("150 Go on.")
            while (left is None or left > 0) and (piece := connection.recv(1 << 16)):
                left = None if left is None else left - len(piece)
            if left is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # as if lost
        if self.server.reply:
            self._say(self.server.reply)

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode("latin-1"))


@contextmanager
def ftp_stub() -> Iterator[FtpStub]:
    with FtpStub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()
