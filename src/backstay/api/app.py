"""The application: every endpoint with its guard, and a problem document for whatever fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypedDict

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from backstay.api.answers import failure_answer, problem_answer
from backstay.api.backing import ApiOptions, Backing
from backstay.api.endpoints import Endpoint
from backstay.api.guard import Guarded, admitting
from backstay.api.middleware import Surroundings
from backstay.api.openapi import described
from backstay.api.problems import instance_of, plain_document
from backstay.api.readings import Readings
from backstay.api.routes import SECTIONS
from backstay.control.service.service import Service
from backstay.core.version import VERSION
from backstay.errors import BackstayError

ENDPOINTS: Final[tuple[Endpoint, ...]] = tuple(endpoint for section in SECTIONS for endpoint in section.endpoints)


class Application(FastAPI):
    """FastAPI's application, which passes what is a reading to its endpoint itself."""

    def __init__(self, backing: Backing, **given: Any) -> None:  # noqa: ANN401 - as FastAPI takes it
        super().__init__(**given)
        self._readings = Readings(backing, ENDPOINTS)
        self._straight = Surroundings(self._readings, backing.clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        way = self._straight if self._readings.take(scope) else super().__call__
        await way(scope, receive, send)


def create_app(service: Service, options: ApiOptions | None = None) -> FastAPI:
    """The interface of an open service. Nothing is opened, and nothing is closed at the end."""
    backing = Backing(service=service, options=options or ApiOptions())
    app = Application(
        backing,
        title="Backstay",
        version=VERSION,
        description="Backups, restores, and what belongs to them.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
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
    return _Where(instance=instance_of(request.scope["path"]), request_id=request.state.request_id)


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, BackstayError)
    return failure_answer(error, **_where(request))


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
