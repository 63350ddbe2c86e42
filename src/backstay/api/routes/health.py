"""Whether the service lives, whether jobs can run, and what this interface is."""

from __future__ import annotations

from fastapi import Request, Response
from typing_extensions import TypedDict

from backstay.api.answers import answer
from backstay.api.call import Caller
from backstay.api.endpoints import PUBLIC, Section

section = Section("health")


class Health(TypedDict):
    """`ok`, and nothing that is worth hiding."""

    status: str


@section.get("/api/health/live", needs=PUBLIC, answers=Health, probed=True)
def health_live(call: Caller) -> Response:
    """Tell that the process answers."""
    del call
    return answer({"status": "ok"})


@section.get("/api/health/ready", needs=PUBLIC, answers=Health, probed=True)
def health_ready(call: Caller) -> Response:
    """Tell whether jobs can run: the catalog answers, and somebody works.

    503 with the cause if not, which may be that the disk of the data directory is full.
    """
    call.backing.require_ready()
    return answer({"status": "ok"})


@section.get("/api/openapi.json", needs=PUBLIC, answers=dict[str, object])
def openapi(request: Request) -> Response:
    """Describe this interface in OpenAPI 3.1."""
    return answer(request.app.openapi())
