"""An FTP server that answers listings as a test tells it to, one client at a time."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_FIXED = {
    "USER": "331 Password?",
    "PASS": "230 In.",
    "TYPE": "200 Binary.",
    "OPTS": "200 Fine.",
    "QUIT": "221 Bye.",
}
ENTRY = "type=file;size=3;modify=20260101000000; {}\r\n"


class FtpStub(socketserver.TCPServer):
    """Every directory holds `listing`, of which `sent` bytes are sent before the data connection is closed.

    `reply` is what is said then; without one the control connection is closed too, with None nothing is said.
    """

    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.listing = b""
        self.sent: int | None = None
        self.reply: str | None = "226 Transfer complete."
        self.closing = threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Session(socketserver.StreamRequestHandler):
    server: FtpStub

    def handle(self) -> None:
        self._say("220 Ready.")
        with socket.create_server(("127.0.0.1", 0)) as data:
            for line in self.rfile:
                command = line.decode().split()[0]
                if command == "EPSV":
                    self._say(f"229 Entering passive mode (|||{data.getsockname()[1]}|)")
                elif command == "PASV":
                    high, low = divmod(data.getsockname()[1], 256)
                    self._say(f"227 Entering passive mode (127,0,0,1,{high},{low})")
                elif command == "MLST":
                    self._say("250-Facts\r\n type=dir; /\r\n250 End")
                elif command == "MLSD":
                    if not self._list(data):
                        return
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

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


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
