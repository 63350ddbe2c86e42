"""The application: every endpoint with its guard, and a problem document for whatever fails."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypedDict

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from backstay.api.answers import problem_answer
from backstay.api.backing import ApiOptions, Backing
from backstay.api.endpoints import Endpoint
from backstay.api.guard import Guarded, admitting
from backstay.api.middleware import Surroundings
from backstay.api.openapi import described
from backstay.api.problems import document_of, headers_of, plain_document, status_of
from backstay.api.routes import SECTIONS
from backstay.control.service.service import Service
from backstay.core.version import VERSION
from backstay.errors import BackstayError

_LOG: Final = logging.getLogger("backstay.api")
ENDPOINTS: Final[tuple[Endpoint, ...]] = tuple(endpoint for section in SECTIONS for endpoint in section.endpoints)


def create_app(service: Service, options: ApiOptions | None = None) -> FastAPI:
    """The interface of an open service. Nothing is opened, and nothing is closed at the end."""
    app = FastAPI(
        title="Backstay",
        version=VERSION,
        description="Backups, restores, and what belongs to them.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    backing = Backing(service=service, options=options or ApiOptions())
    app.state.backing, app.state.closing = backing, backing.closing
    for endpoint in ENDPOINTS:
        _add(app, endpoint)
    app.openapi = lambda: _description(app)  # type: ignore[method-assign]
    app.add_exception_handler(BackstayError, _told)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _plain)
    app.add_middleware(Surroundings, clock=service.clock)
    return app


def _add(app: FastAPI, endpoint: Endpoint) -> None:
    responses: dict[int | str, dict[str, Any]] = {}
    for status, shape in endpoint.answers.items():
        if endpoint.media_type == "application/json" and shape is not None:
            responses[status] = {"model": shape}
        else:
            responses[status] = {"content": {} if shape is None else {endpoint.media_type: {"schema": shape}}}
    route = type("Route", (Guarded,), {"endpoint_declared": endpoint})(
        endpoint.path,
        admitting(endpoint),
        methods=[endpoint.method],
        response_model=None,
        status_code=next(iter(endpoint.answers)),
        response_class=Response,
        responses=responses,
        tags=[endpoint.section],
        summary=endpoint.summary,
        description=endpoint.description,
        operation_id=endpoint.name,
    )
    app.router.routes.append(route)


def _description(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = described(app, ENDPOINTS)
    return app.openapi_schema


class _Where(TypedDict):
    instance: str
    request_id: str


def _where(request: Request) -> _Where:
    return _Where(instance=request.url.path, request_id=request.state.request_id)


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, BackstayError)
    if status_of(error) >= 500:
        _LOG.warning("request %s: %s: %s", request.state.request_id, error.code, error)
    return problem_answer(document_of(error, **_where(request)), headers_of(error))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    document = plain_document(422, **_where(request)) | {
        "type": "urn:backstay:problem:InvalidRequest",
        "code": "InvalidRequest",
        "title": "the request has mistakes",
        "solution": "see `errors`, and /api/openapi.json",
    }
    errors = [_mistake(one) for one in error.errors()]
    cause = "; ".join(f"{one['key']}: {one['message']}" for one in errors[:5])
    document |= {"cause": cause, "detail": f"the request has mistakes: {cause}", "errors": errors[:100]}
    return problem_answer(document)


def _mistake(found: Mapping[str, Any]) -> dict[str, str]:
    """One mistake, without the value that was sent: it may be a secret."""
    message = str(found.get("msg", "")).removeprefix("Value error, ")
    return {"key": _key(found.get("loc", ())), "message": message, "rule": str(found.get("type", ""))}


def _key(place: Iterable[int | str]) -> str:
    return ".".join(str(part) for part in place)


async def _plain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers: Mapping[str, str] = error.headers or {}
    return problem_answer(plain_document(error.status_code, **_where(request)), headers)


def routes_of(app: FastAPI) -> Sequence[Endpoint]:
    """The endpoints that an application has, for tests and the guide."""
    return [route.endpoint_declared for route in app.routes if isinstance(route, Guarded)]
