"""Answers: JSON, not to be kept by anybody on the way, with what a client needs to go on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from fastapi import Response

from backstay.api.problems import MEDIA_TYPE, document_of, headers_of, status_of
from backstay.errors import BackstayError

_LOG: Final = logging.getLogger("backstay.api")
_ENCODER: Final = msgspec.json.Encoder()


def answer(
    document: Any,  # noqa: ANN401 - any JSON
    status: int = 200,
    *,
    location: str | None = None,
    etag: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A document as JSON; `location` leads to what was made, `etag` to the version that was told."""
    found = dict(headers or {})
    if location is not None:
        found["Location"] = location
    if etag is not None:
        found["ETag"] = etag
    return Response(_ENCODER.encode(document), status, found, media_type="application/json")


def done(headers: Mapping[str, str] | None = None) -> Response:
    """Nothing more to say."""
    return Response(status_code=204, headers=dict(headers or {}))


def problem_answer(document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """A problem document as an answer of the status that it names."""
    return Response(_ENCODER.encode(document), document["status"], dict(headers or {}), media_type=MEDIA_TYPE)


def failure_answer(error: BackstayError, *, instance: str, request_id: str) -> Response:
    """A failure as an answer; what is not the client's fault is logged too."""
    if status_of(error) >= 500:
        _LOG.warning("request %s: %s: %s", request_id, error.code, error)
    document = document_of(error, instance=instance, request_id=request_id)
    return problem_answer(document, headers_of(error))


def page(items: list[Any], following: str | None) -> Response:
    """One page of a list; `next` is the cursor of the following one, null at the end."""
    return answer({"items": items, "next": following})
