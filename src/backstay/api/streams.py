"""Streams of events (server-sent events): what changes is sent as it does, until there is an end.

A stream asks the catalog again and again, so that it tells of jobs that any process runs. It holds no thread while it
waits. Whoever listens is asked for their rights again and again too: a token that was revoked hears nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from backstay.api.call import Call
from backstay.api.problems import document_of
from backstay.errors import BackstayError

MEDIA_TYPE: Final = "text/event-stream"
LOOK_S: Final = 0.5
ALIVE_S: Final = 15.0  # a line for proxies that close what is silent
RECHECK_S: Final = 10.0
_RETRY_MS: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One event. `ident` is what a client that comes back names as the last that it has."""

    event: str
    data: Any
    ident: str | None = None

    def encoded(self) -> bytes:
        ident = f"id: {self.ident}\n" if self.ident is not None else ""
        return f"event: {self.event}\n{ident}data: ".encode() + msgspec.json.encode(self.data) + b"\n\n"


class Watched(Protocol):
    """What a stream tells of. `look` gives what is new, and `ended` says that nothing will come any more."""

    ended: bool

    def look(self) -> Sequence[Sent]: ...


def streamed(call: Call, watched: Watched) -> StreamingResponse:
    """A stream as an answer. Raises RateLimited when too many listen."""
    call.backing.listeners.come(call.principal.user_id)
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(_Released(call, _events(call, watched)), media_type=MEDIA_TYPE, headers=headers)


class _Released:
    """Events, and the place given back when they are over, however that comes."""

    def __init__(self, call: Call, events: AsyncIterator[bytes]) -> None:
        self._events, self._open = events, True
        self._listeners, self._user = call.backing.listeners, call.principal.user_id

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._events.__anext__()
        except BaseException:
            self._release()
            raise

    def _release(self) -> None:
        if self._open:
            self._open = False
            self._listeners.go(self._user)

    def __del__(self) -> None:
        self._release()


async def _events(call: Call, watched: Watched) -> AsyncIterator[bytes]:
    clock = call.backing.clock
    yield f"retry: {_RETRY_MS}\n\n".encode()
    heard = checked = clock.monotonic()
    try:
        while not call.backing.closing.is_set():
            for sent in await run_in_threadpool(watched.look):
                heard = clock.monotonic()
                yield sent.encoded()
            if watched.ended:
                yield Sent(event="end", data={}).encoded()
                return
            now = clock.monotonic()
            if now - heard >= ALIVE_S:
                heard = now
                yield b": nothing new\n\n"
            if now - checked >= RECHECK_S:
                checked = now
                await run_in_threadpool(call.still_allowed)
            await asyncio.sleep(LOOK_S)
    except BackstayError as error:
        document = document_of(error, instance=call.path, request_id=call.request_id)
        yield Sent(event="problem", data=document).encoded()
