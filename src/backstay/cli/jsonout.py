"""Results as JSON: exactly one document, always valid UTF-8, with nothing that a terminal would act on."""

from __future__ import annotations

import base64
import codecs
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, Final, TextIO

_BEYOND_ASCII: Final = re.compile(r"[^\n -~]+")  # and DEL; JSON itself escapes what comes before the space


def write(document: object, stream: TextIO) -> None:
    """One document; indented when a person looks at it."""
    indent = 2 if stream.isatty() else None
    told = json.dumps(plain(document), ensure_ascii=not _takes_any_text(stream), indent=indent)
    stream.write(_harmless(told) + "\n")
    stream.flush()


def line(document: object) -> str:
    """One document on one line, in ASCII, wherever it goes."""
    return _harmless(json.dumps(plain(document))) + "\n"


def _takes_any_text(stream: TextIO) -> bool:
    """Whether text comes out as UTF-8; a stream in memory has no encoding."""
    encoding: str | None = getattr(stream, "encoding", None)
    return encoding is None or codecs.lookup(encoding).name == "utf-8"


def _harmless(document: str) -> str:
    return document if document.isascii() and "\x7f" not in document else _BEYOND_ASCII.sub(_escaped, document)


def _escaped(found: re.Match[str]) -> str:
    text = found[0]
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[place : place + 4]}" for place in range(0, len(units), 4))


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
