"""A server, run as a process, that lists a great many objects by answers made beforehand: `listing_server.py COUNT`."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PAGE = 1000


def pages(names: list[str]) -> dict[str, bytes]:
    """The answer for each name that a listing may begin behind."""
    made = {}
    for start in range(0, len(names), PAGE):
        chosen = names[start : start + PAGE]
        more = start + PAGE < len(names)
        entries = "".join(
            f"<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f'<ETag>"{name[-32:]}"</ETag><Size>16777216</Size></Contents>'
            for name in chosen
        )
        token = f"<NextContinuationToken>{chosen[-1]}</NextContinuationToken>" if more else ""
        text = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}</ListBucketResult>"
        made[names[start - 1] if start else ""] = text.encode()
    return made


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    made: dict[str, bytes]
    last: bytes

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        body = self.last if "start-after" in query else self.made[query.get("continuation-token", [""])[0]]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Be quiet."""


def main() -> None:
    names = [f"x/packs/{number % 256:02x}/{number:064x}" for number in range(int(sys.argv[1]))]
    names.sort()
    Handler.made = pages(names)
    Handler.last = pages(names[-1:])[""]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
