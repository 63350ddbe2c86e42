"""Results as JSON: exactly one document, always valid UTF-8."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, TextIO


def write(document: object, stream: TextIO) -> None:
    """One document; indented when a person looks at it."""
    indent = 2 if stream.isatty() else None
    stream.write(json.dumps(plain(document), ensure_ascii=False, indent=indent) + "\n")
    stream.flush()


def line(document: object) -> str:
    """One document on one line."""
    return json.dumps(plain(document), ensure_ascii=False) + "\n"


def plain(value: object) -> Any:  # noqa: ANN401 - whatever JSON can say
    """The value in JSON's own types; bytes that are no UTF-8 become backslash escapes."""
    if isinstance(value, str):
        return (
            value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        )
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, datetime):
        return stamp(value)
    if isinstance(value, PurePath):
        return plain(bytes(value))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (Sequence, set, frozenset)):
        return [plain(item) for item in value]
    return value


def stamp(moment: datetime) -> str:
    """ISO 8601 in UTC, always with microseconds, so that texts sort like times."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def path_fields(path: bytes) -> dict[str, str]:
    """The keys that tell a path: `path`, and its bytes in base64 where they are no UTF-8."""
    try:
        return {"path": path.decode()}
    except UnicodeDecodeError:
        return {"path": plain(path), "path_base64": base64.b64encode(path).decode()}
