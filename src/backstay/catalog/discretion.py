"""What is written down for ever holds no secrets: they are blotted out by the name of their key and by their looks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

HIDDEN: Final = "***"
_SECRET_KEY: Final = re.compile(
    r"pass(word|phrase|wd)?$|secret|token$|authorization|cookie|credential|private_?key|api_?key|^dsn$", re.IGNORECASE
)
_LOOKS: Final = (
    # https://www.rfc-editor.org/rfc/rfc3986#section-3.2.1: user:password before the host
    (re.compile(r"(?<=://)([^\s/@:]*):[^\s@]+@"), r"\1:***@"),
    (re.compile(r"\bbst_[A-Za-z0-9_]{8,}"), HIDDEN),  # a token of ours
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
    (re.compile(r"\b(pass(?:word|phrase|wd)?|secret|token)\s*=\s*[^\s&;,]+", re.IGNORECASE), rf"\1={HIDDEN}"),
)
_EXACT: Final = 2**53  # numbers beyond are not the same for every reader of JSON
_DEEPEST: Final = 20


def discreet(text: str, longest: int | None = None) -> str:
    """A text without secrets that every database takes, cut where it is too long."""
    for pattern, instead in _LOOKS:
        text = pattern.sub(instead, text)
    text = text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
    return text if longest is None or len(text) <= longest else text[: longest - 1] + "…"


def discreet_document(value: Any, depth: int = 0) -> Any:  # noqa: ANN401 - whatever JSON can say
    """The same in JSON's own types, without secrets; what JSON cannot say exactly becomes text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return value if math.isfinite(value) and abs(value) < _EXACT else str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        return {discreet(str(key)): _entry(str(key), item, depth + 1) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        value = sorted(value)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [discreet_document(item, depth + 1) for item in value]
    return discreet(value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value))


def _entry(key: str, value: Any, depth: int) -> Any:  # noqa: ANN401
    return HIDDEN if _SECRET_KEY.search(key) and value not in (None, "", False) else discreet_document(value, depth)
