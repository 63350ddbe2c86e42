"""An HTTP server before another one, that changes a byte of what is uploaded when a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.storage.remote.http_stub import served


class Damage(ThreadingHTTPServer):
    """`on` says whether uploads are damaged, `done` counts those that were."""

    daemon_threads = True

    def __init__(self, upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.on = False
        self.done = 0

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Damage

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.on and self.command == "PUT" and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
            self.server.done += 1
        with closing(HTTPConnection("127.0.0.1", self.server.upstream, timeout=20)) as server:
            server.request(self.command, self.path, body or None, dict(self.headers))
            answer = server.getresponse()
            content = answer.read()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "keep-alive"):
                self.send_header(name, value)
        if "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_DELETE = _pass_on  # noqa: N815 - names that the base class looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Be quiet."""


@contextmanager
def damaging_proxy(upstream: int) -> Iterator[Damage]:
    """A proxy before a port of this machine."""
    with served(Damage(upstream)) as server:
        yield server
