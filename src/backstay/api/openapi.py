"""The description of the interface, OpenAPI 3.1: also of what it refuses, and of the right that each endpoint needs."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from backstay.api.endpoints import Endpoint, Public
from backstay.api.problems import MEDIA_TYPE

_TEXT: Final = {"type": "string"}
_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "What failed, why, and what to do next (RFC 9457).",
    "required": ["type", "title", "status", "detail", "instance", "code", "cause", "solution", "request_id"],
    "properties": {
        "type": {**_TEXT, "description": "urn:backstay:problem:CODE"},
        "title": _TEXT,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": _TEXT,
        "instance": {**_TEXT, "description": "the path that was asked"},
        "code": {**_TEXT, "description": "stable, for programs"},
        "cause": _TEXT,
        "solution": _TEXT,
        "request_id": _TEXT,
        "transient": {"type": "boolean", "description": "whether the same request may succeed later"},
        "errors": {"type": "array", "items": {"type": "object"}, "description": "each mistake of the request"},
        "conflicts": {
            "type": "array",
            "items": {"type": "object", "properties": {"path": _TEXT, "reason": _TEXT}},
        },
    },
}
_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A key of the client's own: the same request with the same key is carried out once.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
}
_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "The ETag of the version that the change is made for.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 512, "pattern": "^[!-~]+$"},
}


def described(app: FastAPI, endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The whole description."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, openapi_version="3.1.0"
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = _PROBLEM
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "A token of `backstay token create`."}
    }
    for endpoint in endpoints:
        _describe(document["paths"][endpoint.path][endpoint.method.lower()], endpoint)
    return document


def _describe(operation: dict[str, Any], endpoint: Endpoint) -> None:
    public = isinstance(endpoint.needs, Public)
    operation["security"] = [] if public else [{"token": []}]
    if not public:
        operation["x-permission"] = endpoint.needs
    for status in sorted(endpoint.statuses):
        operation["responses"][str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    parameters = [*([_KEY] if endpoint.creates else []), *([_MATCH] if 412 in endpoint.refuses else [])]
    if parameters:
        operation.setdefault("parameters", []).extend(parameters)
