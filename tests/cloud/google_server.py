"""Google Cloud Storage as far as a backup needs its XML interface, and the JSON interface for locks and holds.

No emulator that can be installed is faithful: those there are speak the JSON interface only, and overwrite in spite of
`x-goog-if-generation-match: 0`. This one keeps objects in memory and honours what the driver relies on.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.cloud.servers import BUCKET


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


TOKEN = "a-bearer-token"
CREDENTIALS = {"GOOGLE_BEARER_TOKEN": TOKEN}
PAGE = b"<html><body>Please log in</body></html>"
PAGE_TAGS = ('"5f3a-61"', _etag(PAGE))  # of common web servers
_JSON = "/storage/v1/b/"
_MODES = {"COMPLIANCE": "Locked", "GOVERNANCE": "Unlocked"}
_PAGE = 100  # small, so that tests see listings of several pages


@dataclass
class Bucket:
    """Objects by key: bytes, when they were stored, their storage class; and the lock that makes a create atomic.

    `damage` is done to what arrives. `admits` says whose tokens are good. `portal` says to which paths a web page
    is the answer, as from a proxy that wants a login, and with which status: to the methods `strays`, with
    `page_headers` besides its type. `generation` is what an upload is told besides its tag, `asked` are the methods
    of all requests. `locks` are the retention and the hold of objects, in the words of the JSON interface;
    `takes_locks` says whether the bucket was made with object retention, and `versioned` whether what is locked
    becomes noncurrent when it is deleted, instead of staying.
    """

    objects: dict[str, tuple[bytes, float, str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    damage: Callable[[bytes], bytes] = lambda data: data
    portal: Callable[[str], int] = lambda _: 0
    strays: tuple[str, ...] = ("GET", "HEAD", "PUT", "DELETE")
    page_headers: dict[str, str] = field(default_factory=dict)
    generation: dict[str, str] = field(default_factory=lambda: {"x-goog-generation": "1"})
    asked: list[str] = field(default_factory=list)
    admits: Callable[[str], bool] = lambda token: token == TOKEN
    locks: dict[str, dict[str, Any]] = field(default_factory=dict)
    takes_locks: bool = True
    versioned: bool = True
    noncurrent: list[str] = field(default_factory=list)

    def keeps(self, key: str) -> bool:
        """Whether an object may not be deleted or replaced now."""
        lock = self.locks.get(key, {})
        until = lock.get("retention", {}).get("retainUntilTime")
        return lock.get("temporaryHold", False) or (
            until is not None and datetime.fromisoformat(until) > datetime.now(UTC)
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def do_PUT(self) -> None:
        length = int(self.headers["Content-Length"])
        data = self.bucket.damage(received := self.rfile.read(length))
        if len(received) < length:
            return  # half an object is none
        if (key := self._key()) is None:
            return
        with self.bucket.lock:
            if self.headers.get("x-goog-if-generation-match") == "0" and key in self.bucket.objects:
                self._refuse(412, "PreconditionFailed")
                return
            lock = self._lock_of_upload()
            if lock and not self.bucket.takes_locks:
                self._refuse(400, "InvalidArgument")
                return
            if self.bucket.keeps(key) and not self.bucket.versioned:
                self._refuse(403, "RetentionPolicyNotMet")
                return
            self.bucket.locks[key] = lock
            storage_class = self.headers.get("x-goog-storage-class", "STANDARD")
            self.bucket.objects[key] = (data, time.time(), storage_class)
        self._answer(200, headers={"ETag": _etag(data), **self.bucket.generation})

    def _lock_of_upload(self) -> dict[str, Any]:
        mode, until = (self.headers.get(f"x-goog-object-lock-{name}") for name in ("mode", "retain-until-date"))
        if mode is None or until is None:
            return {}
        return {"retention": {"mode": _MODES[mode], "retainUntilTime": until}}

    def do_GET(self) -> None:
        if self.path.startswith(_JSON):
            self._json(None)
            return
        if (key := self._key()) is None:
            return
        if not key:
            self._list()
        elif (found := self.bucket.objects.get(key)) is None:
            self._refuse(404, "NoSuchKey")
        else:
            self._give(*found)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        if (key := self._key()) is None:
            return
        with self.bucket.lock:
            if self.bucket.keeps(key):
                if not self.bucket.versioned:
                    self._refuse(403, "RetentionPolicyNotMet")
                    return
                self.bucket.noncurrent.append(key)
            self.bucket.locks.pop(key, None)
            found = self.bucket.objects.pop(key, None)
        if found is None:
            self._refuse(404, "NoSuchKey")
        else:
            self._answer(204)

    def do_PATCH(self) -> None:
        self._json(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _json(self, change: dict[str, Any] | None) -> None:
        """`objects.get`, `objects.patch`, and `objects.list` as far as it tells that the bucket is there."""
        bucket, _, rest = urlsplit(self.path).path.removeprefix(_JSON).partition("/o")
        key = unquote(rest.removeprefix("/"))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._say(401, "authError")
        elif bucket != BUCKET or (key and key not in self.bucket.objects):
            self._say(404, "notFound")
        elif change is None:
            self._say(200, **(self.bucket.locks.get(key, {}) if key else {"kind": "storage#objects"}))
        elif not self.bucket.takes_locks and "retention" in change:
            self._say(400, "invalid")
        elif self._would_weaken(self.bucket.locks.setdefault(key, {}), change):
            self._say(403, "forbidden")
        else:
            self.bucket.locks[key] |= change
            self._say(200, name=key)

    @staticmethod
    def _would_weaken(lock: dict[str, Any], change: dict[str, Any]) -> bool:
        """Whether a change shortens a retention, or takes back that it is locked; nobody here may override it."""
        old, new = lock.get("retention"), change.get("retention")
        if old is None or "retention" not in change:
            return False
        if new is None or (old["mode"], new["mode"]) == ("Locked", "Unlocked"):
            return True
        return datetime.fromisoformat(new["retainUntilTime"]) < datetime.fromisoformat(old["retainUntilTime"])

    def _say(self, status: int, reason: str = "", **body: object) -> None:
        error = {"error": {"code": status, "message": "", "errors": [{"reason": reason}]}} if reason else {}
        self._answer(status, json.dumps({**error, **body}).encode(), {"Content-Type": "application/json"})

    def _key(self) -> str | None:
        """The object's key, "" for the bucket; None after a refusal."""
        self.bucket.asked.append(self.command)
        if self.command in self.bucket.strays and (status := self.bucket.portal(self.path)):
            self._answer(status, PAGE, {"Content-Type": "text/html", **self.bucket.page_headers})
            return None
        bucket, _, key = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        if not self.bucket.admits(self.headers.get("Authorization", "").removeprefix("Bearer ")):
            self._refuse(401, "AuthenticationRequired")
        elif bucket != BUCKET:
            self._refuse(404, "NoSuchBucket")
        else:
            return key
        return None

    def _give(self, data: bytes, stored: float, _: str) -> None:
        headers = {"ETag": _etag(data), "Last-Modified": formatdate(stored, usegmt=True)}
        wanted = self.headers.get("Range")
        if wanted is None:
            self._answer(200, data, headers)
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) + 1 if last else len(data), len(data))
        if start >= len(data):
            self._refuse(416, "InvalidRange")
            return
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        self._answer(206, data[start:end], headers)

    def _list(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        after = max(query.get("start-after", ""), query.get("continuation-token", ""))
        with self.bucket.lock:
            items = sorted((key, *found) for key, found in self.bucket.objects.items())
        rows: dict[str, str] = {}
        for key, data, stored, _ in items:
            if not key.startswith(prefix) or key <= after:
                continue
            inner, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            name = prefix + inner + cut if cut else key
            rows[name] = f"<Prefix>{escape(name)}</Prefix>" if cut else _contents(key, data, stored)
        page = list(rows.items())[:_PAGE]
        more = len(rows) > len(page)
        body = "".join(
            f"<CommonPrefixes>{row}</CommonPrefixes>" if row.startswith("<Prefix>") else row for _, row in page
        )
        token = f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>" if more else ""
        text = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{body}</ListBucketResult>"
        self._answer(200, text.encode(), {"Content-Type": "application/xml"})

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code></Error>".encode(), {"Content-Type": "application/xml"})

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Be quiet."""


def _contents(key: str, data: bytes, stored: float) -> str:
    moment = datetime.fromtimestamp(stored, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return (
        f"<Contents><Key>{escape(key)}</Key><LastModified>{moment}</LastModified>"
        f"<ETag>{escape(_etag(data))}</ETag><Size>{len(data)}</Size></Contents>"
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections are a part of the tests."""


@contextmanager
def google() -> Iterator[tuple[str, Bucket]]:
    """The endpoint of a server with one empty bucket, and the bucket."""
    bucket = Bucket()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"bucket": bucket}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="google", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", bucket
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
