"""Before an endpoint: who calls, whether they may, and not too often. After it: what became of it is written down.

Of somebody who may not ask no body is read. A body may take its time: once it is there, the guard looks again.

Refusals are written by themselves. A change is written in its own transaction by the endpoint where that can be; what
an endpoint left to say is written here, right after it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from backstay.api.answers import answer
from backstay.api.backing import Backing
from backstay.api.call import Call
from backstay.api.endpoints import Endpoint, Public
from backstay.api.problems import instance_of
from backstay.control.access.denied import not_allowed
from backstay.control.access.principal import Principal
from backstay.errors import BackstayError, Forbidden, InvalidRequest, RateLimited, Unauthorized

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
NOBODY: Final = Principal(user_id="", name="anonymous", grants=(), kind="anonymous")


class Guarded(APIRoute):
    """A route that lets nobody through to its endpoint who may not call it."""

    endpoint_declared: Endpoint

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = self._without_query(super().get_route_handler())

        async def handle(request: Request) -> Response:
            backing: Backing = request.app.state.backing
            request_id = request.state.request_id
            call = call_of(request.scope, request.headers, backing, self.endpoint_declared, request_id)
            request.state.call = call
            if is_admitted_inside(call.endpoint):
                try:
                    return await inner(request)
                except RequestValidationError:
                    await run_in_threadpool(_before, call)  # who may not ask is told that first
                    raise
                except BaseException as error:
                    await run_in_threadpool(failed, call, error)
                    raise
            known = not isinstance(call.endpoint.needs, Public)
            if known:
                await run_in_threadpool(_before, call)
            if call.endpoint.method in ("POST", "PUT"):
                if not _is_json(request.headers.get("content-type", "")):
                    raise HTTPException(415)
                body = await _whole_body(request)
                kept = await run_in_threadpool(_before_again, call, body) if known else None
                if kept is not None:
                    return kept
            try:
                response = await inner(request)
            except BaseException as error:
                await run_in_threadpool(failed, call, error)
                raise
            if call.key is not None or (call.endpoint.does is not None and not call.recorded):
                await run_in_threadpool(_after, call, response)
            return response

        return handle

    def _without_query(
        self, inner: Callable[[Request], Coroutine[Any, Any, Response]]
    ) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """An endpoint that has no query refuses one: what was asked for in it, such as a dry run, would not happen.

        What is probed does nothing, whatever it is asked.
        """
        if self.dependant.query_params or self.endpoint_declared.probed:
            return inner

        async def asked(request: Request) -> Response:
            if request.query_params:
                mistake = {"type": "extra_forbidden", "msg": "Extra inputs are not permitted"}
                raise RequestValidationError([{**mistake, "loc": ("query", name)} for name in request.query_params])
            return await inner(request)

        return asked


def call_of(scope: Scope, headers: Headers, backing: Backing, endpoint: Endpoint, request_id: str) -> Call:
    """What is known of a request before anybody is asked who sent it."""
    path = instance_of(scope["path"])
    client = scope.get("client")
    certificate = scope.get("extensions", {}).get("tls", {}).get("client_certificate")
    return Call(
        backing=backing,
        endpoint=endpoint,
        principal=NOBODY,
        address=client[0] if client is not None else "",
        request_id=request_id,
        path=path,
        certificate=certificate if isinstance(certificate, bytes) else None,
        authorization=headers.get("authorization"),
        if_match=headers.get("if-match"),
        key=headers.get(IDEMPOTENCY_KEY) if endpoint.creates else None,
        object=path[:512],
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

    @functools.wraps(endpoint.run)
    async def run(*, call: Call, **given: Any) -> Response:  # noqa: ANN401 - as the endpoint takes it
        if endpoint.slow:
            return await run_in_threadpool(admitted, call, given)
        return await call.backing.quick.run(admitted, call, given)

    return run


def admitted(call: Call, given: Mapping[str, Any]) -> Response:
    """The answer of an endpoint to whom it admits. Raises what refuses, and what the endpoint raises."""
    _before(call)
    response: Response = call.endpoint.run(call=call, **given)
    if call.endpoint.does is not None and not call.recorded:
        call.write("allow")
    return response


async def _whole_body(request: Request) -> bytes:
    """What a client sent; the endpoint is given the same. Raises HTTPException."""
    try:
        return await request.body()
    except ClientDisconnect:
        raise HTTPException(400) from None


def _before(call: Call) -> None:
    """Let the call through, or raise."""
    with _refusals_told(call):
        _admit(call)


def _before_again(call: Call, body: bytes) -> Response | None:
    """Let the call through with its body, or raise; the kept answer, if it is a repetition."""
    with _refusals_told(call):
        call.still_allowed()
    if call.key is None:
        return None
    call.reservation = call.backing.keys.begin(call.owner, call.key, _digest(call, body))
    if call.reservation.status is None:
        return None
    if call.reservation.scope is not None:
        with _refusals_told(call):
            call.also(call.needs, call.reservation.scope)
    return answer(
        call.reservation.response,
        call.reservation.status,
        location=call.reservation.location,
        headers={"Idempotent-Replayed": "true"},
    )


@contextmanager
def _refusals_told(call: Call) -> Iterator[None]:
    """Write down who is refused."""
    try:
        yield
    except (Unauthorized, Forbidden, RateLimited) as error:
        call.refused(error)
        raise


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


def failed(call: Call, error: BaseException) -> None:
    """Write down what became of a call that came to nothing."""
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
