"""Backstay repositories on a shelf server: `shelf://host:port`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO
from urllib.parse import urlsplit

from backstay.errors import InvalidRequest, ObjectExists, ObjectNotFound, StorageUnavailable
from backstay.storage.backend import Buffer, ObjectInfo, StorageBackend
from backstay.storage.names import check_name, check_prefix, check_range

TIMEOUT_S = 60


class ShelfStorage(StorageBackend):
    """One connection per thread at most; those that failed are not used again."""

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self._idle: list[tuple[socket.socket, BinaryIO]] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return "shelf://{}:{}".format(*self._place)

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        check_name(name)
        content = bytes(data)
        # The server keeps all or nothing, and decides alone who comes first.
        refusal, _ = self._ask(f"PUT {name} {len(content)} {'any' if overwrite else 'new'}", content)
        if refusal == "taken":
            raise ObjectExists(name)
        self._expect(refusal, f"cannot store {name}")

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_name(name)
        check_range(start, length)
        refusal, data = self._ask(f"GET {name} {start} {'-' if length is None else length}")
        if refusal == "absent":
            raise ObjectNotFound(name)
        self._expect(refusal, f"cannot read {name}")  # "range" among them: never a short answer
        return data

    def delete(self, name: str) -> None:
        check_name(name)
        refusal, _ = self._ask(f"DEL {name}")
        self._expect(refusal, f"cannot delete {name}")

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        refusal, rows = self._ask("LST")
        self._expect(refusal, "cannot list")
        fields = (row.split(" ") for row in rows.decode().splitlines() if row.startswith(prefix))
        return (ObjectInfo(name=name, size=int(size), modified_ns=int(at)) for name, size, at in fields)

    def close(self) -> None:
        while self._idle:
            for part in self._idle.pop():
                part.close()

    def _ask(self, line: str, content: bytes = b"") -> tuple[str, bytes]:
        """What the server refuses for, or nothing, and the bytes that it answers with: all of them."""
        with self._connection() as (connection, answers):
            connection.sendall(f"{line}\n".encode() + content)
            verdict, _, detail = answers.readline(4096).decode().strip().partition(" ")
            if verdict == "NO":
                return detail, b""
            if verdict != "OK" or len(data := answers.read(int(detail))) != int(detail):
                raise OSError("the connection ended in the middle of an answer")
            return "", data

    @contextmanager
    def _connection(self) -> Iterator[tuple[socket.socket, BinaryIO]]:
        with self._lock:
            pair = self._idle.pop() if self._idle else None
        try:
            if pair is None:
                connection = socket.create_connection(self._place, timeout=TIMEOUT_S)
                pair = connection, connection.makefile("rb")
            yield pair
        except OSError as error:  # the library's own errors do not leave the backend
            for part in pair or ():
                part.close()
            raise StorageUnavailable(f"{self.url} does not answer", cause=str(error)) from error
        with self._lock:
            self._idle.append(pair)

    @staticmethod
    def _expect(refusal: str, title: str) -> None:
        if refusal:
            raise StorageUnavailable(title, cause=f"the server says: {refusal}")


def open_shelf(url: str) -> ShelfStorage:
    """What `shelf://host:port` means."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise InvalidRequest("this is no shelf: address", hint="write shelf://host:port")
    return ShelfStorage(host, port)
