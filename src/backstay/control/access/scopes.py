"""Scopes: the paths of what permissions are asked of and roles are given for.

`/` is everything, `/policy/NAME` what a policy makes, `/policy/NAME/source/SNAPSHOT_NAME` one of its sources, and
`/repository` the repository itself. What holds for a scope holds for all below it. Segments are compared whole and
character by character: nothing is decoded, folded or normalised, so that a scope has one spelling.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from backstay.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import InstrumentedAttribute

EVERYTHING: Final = "/"
REPOSITORY: Final = "/repository"
MAX_LENGTH: Final = 512
_UNSTORABLE: Final = frozenset({"Cc", "Cs"})  # control characters, halves of characters


def policy_scope(policy: str) -> str:
    """What belongs to a policy. Raises InvalidRequest."""
    return parse_scope(f"/policy/{_one_segment(policy)}")


def source_scope(policy: str, snapshot_name: str) -> str:
    """What belongs to one source of a policy. Raises InvalidRequest."""
    return parse_scope(f"/policy/{_one_segment(policy)}/source/{_one_segment(snapshot_name)}")


def parse_scope(text: str) -> str:
    """The same text, if it is a scope. Raises InvalidRequest."""
    if text in (EVERYTHING, REPOSITORY):
        return text
    if len(text) > MAX_LENGTH or any(unicodedata.category(character) in _UNSTORABLE for character in text):
        raise _wrong(text[:MAX_LENGTH])
    match text.split("/"):
        case ["", "policy", name] if _names(name):
            return text
        case ["", "policy", name, "source", source] if _names(name) and _names(source):
            return text
    raise _wrong(text)


def covers(outer: str, inner: str) -> bool:
    """Whether what holds for `outer` holds for `inner`."""
    return outer in (EVERYTHING, inner) or inner.startswith(outer + "/")


def meet(one: str, other: str) -> str | None:
    """What lies within both, None if nothing does."""
    if covers(one, other):
        return other
    return one if covers(other, one) else None


def outermost(scopes: Iterable[str]) -> tuple[str, ...]:
    """The same reach in the fewest scopes, sorted."""
    kept: list[str] = []
    for scope in sorted(set(scopes), key=lambda text: (len(text), text)):
        if not any(covers(outer, scope) for outer in kept):
            kept.append(scope)
    return tuple(sorted(kept))


def within(column: InstrumentedAttribute[str], scopes: Iterable[str]) -> ColumnElement[bool]:
    """The condition that a row's scope lies within one of these.

    Compared by `substr`: LIKE takes `A` for `a` on SQLite, and `%` and `_` for what they are not.
    """
    from sqlalchemy import false, func, or_, true

    conditions: list[Any] = []
    for scope in outermost(scopes):
        if scope == EVERYTHING:
            return true()
        below = scope + "/"
        conditions += [column == scope, func.substr(column, 1, len(below)) == below]
    return or_(*conditions) if conditions else false()


def _one_segment(name: str) -> str:
    if "/" in name:
        raise InvalidRequest(f"{name!r} cannot be part of a scope", cause="it has a `/`")
    return name


def _names(segment: str) -> bool:
    return segment not in ("", ".", "..")


def _wrong(text: str) -> InvalidRequest:
    return InvalidRequest(
        f"{text!r} is no scope", hint="scopes are /, /policy/NAME, /policy/NAME/source/SNAPSHOT_NAME and /repository"
    )
