"""What the `files` commands of a Kubo node answer, over HTTP: a stub, because no node comes as a Python package."""

from __future__ import annotations

import json
import threading
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class KuboStub(ThreadingHTTPServer):
    """`files` maps paths to (bytes, seconds, nanoseconds), directories are a set of paths."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, tuple[bytes, int, int]] = {}
        self.directories = {"/"}
        self.lock = threading.RLock()
        self.answer: tuple[int, str, bytes] | None = None  # instead of all others: status, type, body
        self.lose = 0  # bytes that reads lack

    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections are a part of the tests."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Refused(Exception):
    pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # else headers and body are two packets, and the second waits for an acknowledgement
    server: KuboStub

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            return  # half an object is none
        parts = urlsplit(self.path)
        command = parts.path.removeprefix("/api/v0/files/")
        arguments = parse_qs(parts.query)
        try:
            if self.server.answer:
                status, kind, answer = self.server.answer
            else:
                with self.server.lock:
                    answer = getattr(self, f"do_{command}")(arguments, body)
                status, kind = 200, "application/json"
        except _Refused as error:
            status, kind = 500, "application/json"
            answer = json.dumps({"Message": str(error), "Code": 0, "Type": "error"}).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_write(self, arguments: dict[str, list[str]], body: bytes) -> bytes:
        path = arguments["arg"][0]
        for at in range(1, path.count("/")):
            above = "/".join(path.split("/")[: at + 1])
            if above in self.server.files:
                raise _Refused(f"{above} is not a directory")
            self.server.directories.add(above)
        kind = self.headers["Content-Type"].encode()
        message = BytesParser().parsebytes(b"Content-Type: " + kind + b"\r\n\r\n" + body[:0])
        boundary = b"--" + str(message.get_param("boundary")).encode()
        data = body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n" + boundary + b"--", 1)[0]
        self.server.files[path] = (data, 0, 0)
        return b""

    def do_touch(self, arguments: dict[str, list[str]], body: bytes) -> bytes:
        path = arguments["arg"][0]
        data, _, _ = self._file(path)
        self.server.files[path] = (data, int(arguments["mtime"][0]), int(arguments["mtime-nsecs"][0]))
        return b""

    def do_stat(self, arguments: dict[str, list[str]], body: bytes) -> bytes:
        path = arguments["arg"][0]
        if path in self.server.directories:
            return _json({"Hash": "Qm", "Size": 0, "CumulativeSize": 4, "Blocks": 0, "Type": "directory"})
        data, seconds, nanoseconds = self._file(path)
        found: dict[str, Any] = {
            "Hash": "Qm",
            "Size": len(data),
            "CumulativeSize": len(data),
            "Blocks": 1,
            "Type": "file",
        }
        return _json(found | ({"Mtime": seconds, "MtimeNsecs": nanoseconds} if seconds else {}))

    def do_read(self, arguments: dict[str, list[str]], body: bytes) -> bytes:
        data, _, _ = self._file(arguments["arg"][0])
        start = int(arguments["offset"][0])
        return data[start : start + int(arguments["count"][0]) - self.server.lose]

    def do_ls(self, arguments: dict[str, list[str]], body: bytes) -> bytes:
        path = arguments["arg"][0]
        if path not in self.server.directories:
            raise _Refused("file does not exist")
        entries = [
            {"Name": one.rpartition("/")[2], "Type": kind, "Size": 0, "Hash": "Qm"}
            for kind, all_ in ((0, self.server.files), (1, self.server.directories))
            for one in all_
            if one != "/" and one.rpartition("/")[0] == path.rstrip("/")
        ]
        return _json({"Entries": entries or None})  # as Kubo does it

    def do_mv(self, arguments: dict[str, list[str]], body: bytes) -> bytes:
        source, target = arguments["arg"]
        self.server.files[target] = self._file(source)
        del self.server.files[source]
        return b""

    def do_rm(self, arguments: dict[str, list[str]], body: bytes) -> bytes:
        path = arguments["arg"][0]
        if path in self.server.directories:
            raise _Refused(f"{path} is a directory, use -r to remove directories")
        self._file(path)
        del self.server.files[path]
        return b""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the method's own
        """Nobody reads it."""

    def _file(self, path: str) -> tuple[bytes, int, int]:
        if path not in self.server.files:
            raise _Refused("file does not exist")
        return self.server.files[path]


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
