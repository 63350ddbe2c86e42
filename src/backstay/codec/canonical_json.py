"""JSON values as the one sequence of bytes that RFC 8785 gives them, so that equal values have equal digests."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, TypeAlias

import rfc8785

from backstay.errors import CorruptedBackup, InvalidRequest

Json: TypeAlias = Any  # None, bool, int, float, str, or lists and dicts of these


def canonical(value: Json, *, what: str = "the value") -> bytes:
    """Raises InvalidRequest for what JSON cannot hold: NaN, integers beyond 2^53, keys that are no text, cycles."""
    try:
        return rfc8785.dumps(value)
    except RecursionError as error:
        raise _refused(what, "it contains itself, or nests too deeply") from error
    except (ValueError, TypeError) as error:
        raise _refused(what, str(error)) from error


def parse_json(data: bytes, *, what: str) -> Json:
    """The value of a JSON text that is stored. Raises InvalidRequest where it is none."""
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"{what} is no JSON value", cause=str(error), hint="`retrieve` gives its bytes as they are"
        ) from error


def parse_given(data: bytes, *, what: str) -> Json:
    """The value of a JSON text that is to be stored. Raises InvalidRequest, also for an object with a name twice."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"{what} is no JSON value", cause=str(error), hint="mend it, or store its bytes as they are"
        ) from error


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    check_members(pairs)
    return dict(pairs)


def check_members(pairs: list[tuple[str, object]]) -> None:
    """Raises ValueError for an object that has one name twice, which readers understand in different ways."""
    if len({name for name, _ in pairs}) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"{twice[:80]!r} stands twice in one object")


def parse_stored(data: bytes | None) -> dict[str, Json]:
    """The JSON object that was stored beside a value. Raises CorruptedBackup."""
    if data is None:
        return {}
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptedBackup("the metadata of a value cannot be read", cause=str(error)) from error
    if not isinstance(value, dict):
        raise CorruptedBackup("the metadata of a value is no JSON object")
    return value


def _refused(what: str, cause: str) -> InvalidRequest:
    return InvalidRequest(
        f"{what} cannot be written as canonical JSON",
        cause=cause,
        hint="store its bytes instead, or only null, booleans, texts, lists, objects and numbers of JSON (RFC 8785)",
    )
