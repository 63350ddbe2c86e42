"""Before an endpoint: who calls, whether they may, and not too often. After it: what became of it is written down.

Refusals are written by themselves. A change is written in its own transaction by the endpoint where that can be; what
an endpoint left to say is written here, right after it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from anyio import to_thread
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from backstay.api.answers import answer
from backstay.api.backing import Backing
from backstay.api.call import Call
from backstay.api.endpoints import Endpoint, Public
from backstay.control.access.denied import not_allowed
from backstay.control.access.principal import Principal
from backstay.errors import BackstayError, Forbidden, InvalidRequest, RateLimited, Unauthorized

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
ENDPOINT: Final = "x-backstay-endpoint"
NOBODY: Final = Principal(user_id="", name="anonymous", grants=(), kind="anonymous")


class Guarded(APIRoute):
    """A route that lets nobody through to its endpoint who may not call it."""

    endpoint_declared: Endpoint

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            backing: Backing = request.app.state.backing
            call = _call(request, backing, self.endpoint_declared)
            request.state.call = call
            if is_admitted_inside(call.endpoint):
                try:
                    return await inner(request)
                except RequestValidationError:
                    await run_in_threadpool(_before, call)  # who may not ask is told that first
                    raise
                except BaseException as error:
                    await run_in_threadpool(_failed, call, error)
                    raise
            digest = _digest(call, await request.body()) if call.key is not None else ""
            kept = await run_in_threadpool(_before, call, digest)
            if kept is not None:
                return kept
            try:
                if call.endpoint.method in ("POST", "PUT") and not _is_json(request.headers.get("content-type", "")):
                    raise HTTPException(415)
                response = await inner(request)
            except BaseException as error:
                await run_in_threadpool(_failed, call, error)
                raise
            if call.key is not None or (call.endpoint.does is not None and not call.recorded):
                await run_in_threadpool(_after, call, response)
            return response

        return handle


def _certificate(request: Request) -> bytes | None:
    """The certificate that the client has proved to have, in DER."""
    found = request.scope.get("extensions", {}).get("tls", {}).get("client_certificate")
    return found if isinstance(found, bytes) else None


def _call(request: Request, backing: Backing, endpoint: Endpoint) -> Call:
    return Call(
        backing=backing,
        endpoint=endpoint,
        principal=NOBODY,
        address=request.client.host if request.client is not None else "",
        request_id=request.state.request_id,
        path=request.url.path,
        certificate=_certificate(request),
        authorization=request.headers.get("authorization"),
        if_match=request.headers.get("if-match"),
        key=request.headers.get(IDEMPOTENCY_KEY) if endpoint.creates else None,
        object=request.url.path[:512],
    )


def _is_json(media_type: str) -> bool:
    """Whether a body of this kind is read; one without a kind is for JSON."""
    kind = media_type.partition(";")[0].strip().lower()
    return kind in ("", "application/json") or (kind.startswith("application/") and kind.endswith("+json"))


def _digest(call: Call, body: bytes) -> str:
    """What makes two requests the same: method, path, and the body as JSON, however it is written."""
    with suppress(ValueError, RecursionError):  # what is no JSON the endpoint refuses, and nothing is kept
        body = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(f"{call.endpoint.method} {call.path}\n".encode() + body).hexdigest()


def is_admitted_inside(endpoint: Endpoint) -> bool:
    """Whether the guard runs in the thread of the endpoint itself: for what reads, a change of threads is dear."""
    return endpoint.method == "GET" and not isinstance(endpoint.needs, Public)


def admitting(endpoint: Endpoint) -> Callable[..., Any]:
    """The endpoint's function, behind the guard."""
    if not is_admitted_inside(endpoint):
        return endpoint.run

    def answered(call: Call, given: dict[str, Any]) -> Response:
        _before(call)
        response: Response = endpoint.run(call=call, **given)
        if endpoint.does is not None and not call.recorded:
            call.write("allow")
        return response

    @functools.wraps(endpoint.run)
    async def run(*, call: Call, **given: Any) -> Response:  # noqa: ANN401 - as the endpoint takes it
        limiter = None if endpoint.slow else call.backing.quick
        return await to_thread.run_sync(answered, call, given, limiter=limiter)

    return run


def _before(call: Call, digest: str = "") -> Response | None:
    """Let the call through, or raise; the kept answer, if it is a repetition."""
    if isinstance(call.endpoint.needs, Public):
        return None
    try:
        _admit(call)
    except (Unauthorized, Forbidden, RateLimited) as error:
        call.refused(error)
        raise
    if call.key is None:
        return None
    call.reservation = call.backing.keys.begin(call.owner, call.key, digest)
    if call.reservation.status is None:
        return None
    return answer(
        call.reservation.response,
        call.reservation.status,
        location=call.reservation.location,
        headers={"Idempotent-Replayed": "true"},
    )


def _admit(call: Call) -> None:
    """See who calls, and that they may somewhere. Raises Unauthorized, RateLimited, Forbidden."""
    access, authorization = call.backing.access, call.authorization
    scheme, _, text = (authorization or "").partition(" ")
    if authorization is None and call.certificate is not None:
        pass  # an agent, known by that
    elif scheme.lower() != "bearer" or not text.strip():
        access.limits.hit("unrecognised", call.address)
        cause = "it has no token" if authorization is None else "its Authorization is not `Bearer TOKEN`"
        raise Unauthorized("nobody is known by this request", cause=cause, reason="no_credentials")
    call.credentials = text.strip()
    call.principal = call.recognised()
    access.limits.hit("api", call.owner)
    if call.endpoint.limit != "api":
        access.limits.hit(call.endpoint.limit, call.owner)
    if not call.scopes:
        raise not_allowed(call.needs, "any scope")


def _failed(call: Call, error: BaseException) -> None:
    if call.key is not None and call.reservation is not None:
        call.backing.keys.forget(call.owner, call.key)
    if not isinstance(error, BackstayError) or call.recorded:
        return
    if isinstance(error, (Unauthorized, Forbidden, RateLimited)):
        call.refused(error)
    elif call.endpoint.does is not None and not isinstance(error, InvalidRequest):
        call.write("error", reason=error.code)


def _after(call: Call, response: Response) -> None:
    with call.backing.catalog.session() as session:
        if call.endpoint.does is not None and not call.recorded:
            call.record(session)
        call.keep(session, response)
