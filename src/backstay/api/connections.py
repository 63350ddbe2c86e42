"""Connections: bounded before anything is known of them, and with the certificate that a client showed.

uvicorn's own protocol with what it leaves out: how long and how large the head of a request may be, how long its
body, how long a client may take nothing of an answer, and which certificate the client has proved to have. It stands in
the scope as `extensions["tls"]["client_certificate"]`, in DER.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from backstay.api.problems import MEDIA_TYPE, plain_document

MOST_HEAD_BYTES: Final = 64 << 10
HEAD_S: Final = 20.0  # from the first byte of a connection, or the end of the request before, to the end of a head
BODY_S: Final = 60.0  # from there to the end of its body: a mebibyte, by 18 kB a second

TAKE_S: Final = 30.0  # in which a client must take so much of an answer that waits for it, or nearly all that is left
LEAST_TAKEN: Final = 128 << 10


class Connection(HttpToolsProtocol):
    """One connection."""

    _certificate: bytes | None = None
    _head_bytes = 0
    _patience: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("ssl_object")
        if connection is not None:
            self._certificate = connection.getpeercert(binary_form=True)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._is_taken()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_taking()

    def resume_writing(self) -> None:
        self._is_taken()
        super().resume_writing()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        if self._patience is None:
            self._wait_for_head()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        if self._certificate is not None:
            scope["extensions"] = {"tls": {"client_certificate": self._certificate}}

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(BODY_S, self._too_slow)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._stop_waiting()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        document = plain_document(400, instance="", request_id="", cause=msg.rstrip("."))
        body = msgspec.json.encode(document)
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"Cache-Control: no-store\r\nConnection: close\r\n\r\n" + body)
        self.transport.close()

    def _count(self, length: int) -> None:
        self._head_bytes += length
        if self._head_bytes > MOST_HEAD_BYTES:
            raise ValueError("the head of the request is too large")  # the parser makes a 400 of it

    def _wait_for_head(self) -> None:
        self._patience = self.loop.call_later(HEAD_S, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _wait_for_taking(self) -> None:
        self._is_taken()
        left = self.transport.get_write_buffer_size()
        self._taking = self.loop.call_later(TAKE_S, self._look_at_taking, left)

    def _look_at_taking(self, before: int) -> None:
        self._taking = None
        if before - self.transport.get_write_buffer_size() >= LEAST_TAKEN:
            self._wait_for_taking()
        else:
            self._too_slow()

    def _is_taken(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _too_slow(self) -> None:
        self._patience = None
        if not self.transport.is_closing():
            self.transport.abort()
