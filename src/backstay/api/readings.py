"""The straight way: what only reads the catalog comes to its endpoint without what the framework does for the rest.

It is taken by requests whose parameters are all in order; whatever else there is to say about a request, the framework
says. Both ways run the same guard and the same endpoints with the same values, and they are described by the same
declarations: the straight one takes about a third of the time.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

from fastapi import params
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from backstay.api.answers import failure_answer
from backstay.api.backing import Backing
from backstay.api.call import Call
from backstay.api.endpoints import Endpoint
from backstay.api.guard import admitted, call_of, failed, is_admitted_inside
from backstay.errors import BackstayError

_CHOSEN: Final = "backstay.reading"  # in the scope: the endpoint, and what it is given


@dataclass(frozen=True, slots=True)
class _Route:
    """The path of an endpoint that reads, and how its parameters are understood; `reading` is None off this way."""

    path: re.Pattern[str]
    reading: Reading | None


@dataclass(frozen=True, slots=True)
class Reading:
    """An endpoint of the straight way: adapters of what its path names, and the name and model of its query."""

    endpoint: Endpoint
    named: Mapping[str, TypeAdapter[Any]]
    query: tuple[str, type[BaseModel]] | None

    def given(self, named: Mapping[str, str], query: bytes) -> dict[str, Any] | None:
        """The arguments of the endpoint; None if something is wrong, unknown, or said twice."""
        asked = QueryParams(query)
        words = dict(asked)
        if len(words) != len(asked.multi_items()) or (words and self.query is None):
            return None
        try:
            found = {name: adapter.validate_python(named[name]) for name, adapter in self.named.items()}
            if self.query is not None:
                name, model = self.query
                found[name] = model.model_validate(words)
        except ValidationError:
            return None
        return found


class Readings:
    """All endpoints of the straight way, by their paths."""

    def __init__(self, backing: Backing, endpoints: Iterable[Endpoint]) -> None:
        self._backing = backing
        self._fixed: dict[str, _Route] = {}
        self._others: dict[int, list[_Route]] = {}  # by the number of slashes, in the order in which they are tried
        for endpoint in endpoints:
            if endpoint.method != "GET":
                continue
            pattern, _, names = compile_path(endpoint.path)
            route = _Route(pattern, reading_of(endpoint))
            if names:
                self._others.setdefault(endpoint.path.count("/"), []).append(route)
            else:
                self._fixed[endpoint.path] = route

    def take(self, scope: Scope) -> bool:
        """Whether a request goes this way; `__call__` answers it then."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope.get("root_path"):
            return False
        path: str = scope["path"]
        named: Mapping[str, str] = {}
        route = self._fixed.get(path)
        if route is None:
            for route in self._others.get(path.count("/"), ()):
                if (found := route.path.match(path)) is not None:
                    named = found.groupdict()
                    break
            else:
                return False
        if route.reading is None or (given := route.reading.given(named, scope["query_string"])) is None:
            return False
        scope[_CHOSEN] = (route.reading.endpoint, given)
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that was taken."""
        endpoint, given = scope[_CHOSEN]
        request_id = scope["state"]["request_id"]
        call = call_of(scope, Headers(scope=scope), self._backing, endpoint, request_id)
        response = await self._backing.quick.run(_answered, call, given)
        await response(scope, receive, send)


def reading_of(endpoint: Endpoint) -> Reading | None:
    """How the parameters of an endpoint are understood; None for one that the framework is needed for."""
    if endpoint.slow or endpoint.media_type != "application/json" or not is_admitted_inside(endpoint):
        return None
    hints = get_type_hints(endpoint.run, include_extras=True)
    named: dict[str, TypeAdapter[Any]] = {}
    query: tuple[str, type[BaseModel]] | None = None
    for name in inspect.signature(endpoint.run).parameters:
        kind, *notes = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name],)
        if any(isinstance(note, params.Path) for note in notes):
            named[name] = TypeAdapter(hints[name])
        elif any(isinstance(note, params.Query) for note in notes) and issubclass(kind, BaseModel) and query is None:
            query = (name, kind)
        elif kind is not Call:
            return None
    return Reading(endpoint, named, query)


def _answered(call: Call, given: Mapping[str, Any]) -> Response:
    try:
        try:
            return admitted(call, given)
        except BaseException as error:
            failed(call, error)  # which may fail itself, where nothing can be written down
            raise
    except BackstayError as error:
        return failure_answer(error, instance=call.path, request_id=call.request_id)
