"""Around every request: an id, limits on its size, headers that keep browsers safe, and an answer whatever happens.

Plain ASGI, so that streams are passed on piece by piece.
"""

from __future__ import annotations

import logging
import random
import re
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backstay.api.answers import problem_answer
from backstay.api.problems import instance_of, plain_document
from backstay.core.clock import Clock
from backstay.core.ids import Random, new_ulid

LARGEST_BODY: Final = 1 << 20  # bytes; no request needs more
REQUEST_ID: Final = "X-Request-Id"
_REQUEST_ID: Final = REQUEST_ID.lower().encode()
_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LOG: Final = logging.getLogger("backstay.api")

# A browser that is led here runs nothing, keeps nothing, and is framed by nobody: hardly anything here is a page.
# As they go over the wire: this is done for every answer.
_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
_HSTS: Final = (b"strict-transport-security", b"max-age=31536000")


# Ids of requests only name them; to ask the system for each would let other threads in between.
_NAMES: Final = random.Random()  # noqa: S311


class Surroundings:
    """The application with what holds for each request."""

    def __init__(
        self, app: ASGIApp, clock: Clock, *, largest: int = LARGEST_BODY, names: Random = _NAMES.randbytes
    ) -> None:
        self._app, self._clock, self._largest, self._names = app, clock, largest, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        await _Request(self, scope, receive, send).whole(self._app, self._largest)

    def request_id(self, headers: Headers) -> str:
        """The id that the client gave, if it is one, else a new one."""
        given = headers.get(REQUEST_ID, "")
        return given if _ID.fullmatch(given) else new_ulid(self._clock.now_ns(), self._names)


class _Request:
    def __init__(self, around: Surroundings, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.headers = Headers(scope=scope)
        self.id = around.request_id(self.headers)
        self.began = False
        self.taken = 0

    async def whole(self, app: ASGIApp, largest: int) -> None:
        self.scope.setdefault("state", {})["request_id"] = self.id
        try:
            declared = self.headers.get("content-length", "0")
            if not declared.isascii() or not declared.isdigit():
                await self._refuse(400, "Content-Length is no number")
            elif int(declared[:20]) > largest:
                await self._refuse(413, f"more than {largest} bytes are not taken")
            else:
                await app(self.scope, lambda: self._counted(largest), self._dressed)
        except Exception:
            _LOG.exception("request %s: %s %s failed", self.id, self.scope["method"], self.scope["path"])
            if self.began:
                raise  # the connection is broken off, so that half an answer does not look like a whole one
            await self._refuse(500)

    async def _counted(self, largest: int) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.taken += len(message.get("body", b""))
            if self.taken > largest:
                raise HTTPException(413)
        return message

    async def _dressed(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.began = True
            headers: list[tuple[bytes, bytes]] = message["headers"]
            said = {name for name, _ in headers}
            headers += [pair for pair in _HEADERS if pair[0] not in said]
            headers.append((_REQUEST_ID, self.id.encode()))
            if self.scope.get("scheme") == "https":
                headers.append(_HSTS)
        await self._send(message)

    async def _refuse(self, status: int, cause: str = "") -> None:
        if self.began:
            return
        document = plain_document(status, instance=instance_of(self.scope["path"]), request_id=self.id, cause=cause)
        await problem_answer(document)(self.scope, self._receive, self._dressed)
