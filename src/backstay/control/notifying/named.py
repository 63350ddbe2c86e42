"""What targets and matchers have in common: names that nobody else has, versions, and those of the policy file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from backstay.catalog.locking import take
from backstay.catalog.models import Matcher, Target
from backstay.errors import InvalidRequest, NotFound, PreconditionFailed

FROM_FILE: Final = "file"
FROM_API: Final = "api"
_NAME_MOST: Final = 255

Named = TypeVar("Named", Target, Matcher)


def take_turn(session: Session) -> None:
    """Wait until nobody else changes targets or matchers; until the end of the transaction."""
    take(session, "notifications")


def found(session: Session, table: type[Named], ident: str, *, to_change: bool = False) -> Named:
    """A row by its id; to change it, as it is once nobody else does. Raises NotFound."""
    if to_change:
        take_turn(session)
    row = session.get(table, ident, populate_existing=to_change)
    if row is None:
        word = _word(table)
        raise NotFound(f"there is no {word} {ident!r}", hint=f"list the {word}s of notifications")
    return row


def changeable(session: Session, table: type[Named], ident: str, version: int | None) -> Named:
    """A row that the interface may change, if it has this version; None for any.

    Raises NotFound, InvalidRequest, PreconditionFailed.
    """
    row, word = found(session, table, ident, to_change=True), _word(table)
    if row.origin == FROM_FILE:
        raise InvalidRequest(
            f"the {word} {row.name!r} is one of the policy file", hint="change the file, and load it again"
        )
    if version is not None and version != row.version:
        raise PreconditionFailed(f"the {word} {row.name!r} was changed", cause=f"its version is {row.version}")
    return row


def check_name(session: Session, table: type[Named], name: str) -> None:
    """See that a new row may have this name. Raises InvalidRequest."""
    take_turn(session)
    word = _word(table)
    if not name.strip() or len(name) > _NAME_MOST or not name.isprintable():
        raise InvalidRequest(f"this is no name for a {word}", hint=f"it has 1 to {_NAME_MOST} printable characters")
    if session.scalar(select(table.id).where(table.name == name)):
        raise InvalidRequest(f"there is a {word} {name!r} already", hint="choose another name")


def drop_others_of_file(session: Session, rows: Mapping[str, Named], names: Collection[str]) -> None:
    """Remove what an earlier policy file named and this one does not."""
    for name, row in rows.items():
        if row.origin == FROM_FILE and name not in names:
            session.delete(row)
    session.flush()


def _word(table: type[Target | Matcher]) -> str:
    return table.__name__.lower()
