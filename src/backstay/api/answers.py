"""Answers: JSON, not to be kept by anybody on the way, with what a client needs to go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from fastapi import Response

from backstay.api.problems import MEDIA_TYPE

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


def page(items: list[Any], following: str | None) -> Response:
    """One page of a list; `next` is the cursor of the following one, null at the end."""
    return answer({"items": items, "next": following})
