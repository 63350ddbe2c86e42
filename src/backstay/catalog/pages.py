"""Long lists in pages: each ends with a cursor that says where the next one begins.

A cursor holds the last row's own order, not a number of rows, so that rows that come or go meanwhile are neither
doubled nor passed over. It gives no rights: whoever forges one sees what the same list would have shown anyway.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeAlias, TypeVar

from sqlalchemy import Integer, Select, bindparam, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from backstay.catalog.models.base import Moment
from backstay.codec.digest import sha256
from backstay.errors import InvalidRequest

DEFAULT_LIMIT: Final = 50
MAXIMUM_LIMIT: Final = 1000
_LONGEST_CURSOR: Final = 2000
_CHECK_BYTES: Final = 8
_LIMIT: Final = "_limit"

ItemT = TypeVar("ItemT")
OtherT = TypeVar("OtherT")
Key: TypeAlias = "InstrumentedAttribute[Any]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[ItemT]):
    """Some rows of a list in order; `next` gives the following ones, None at the end."""

    items: tuple[ItemT, ...]
    next: str | None = None

    def map(self, change: Callable[[ItemT], OtherT]) -> Page[OtherT]:
        """The same page with each item changed."""
        return Page(items=tuple(map(change, self.items)), next=self.next)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """By which columns a list is sorted: none of them is ever NULL, and together they are different in each row.

    `name` is that of the list: a cursor of one list is refused by all others.
    """

    name: str
    keys: tuple[Key, ...]
    descending: bool = True


def page_of(
    session: Session,
    query: Select[ItemT],
    order: Order,
    *,
    limit: int | None = None,
    cursor: str | None = None,
) -> Page[ItemT]:
    """The rows of a query from a cursor on. Raises InvalidRequest for a limit or a cursor that cannot be."""
    values = places(order, limit, cursor)
    rows = session.scalars(placed(query, order, after=cursor is not None), values).all()
    return page_of_rows(rows, order, limit)


def placed(query: Select[ItemT], order: Order, *, after: bool) -> Select[ItemT]:
    """A query as a page takes it, of which `places` are the parameters; `after` where there is a cursor."""
    if after:
        query = query.where(_behind(order))
    query = query.order_by(*(key.desc() if order.descending else key.asc() for key in order.keys))
    return query.limit(bindparam(_LIMIT, type_=Integer))


def places(order: Order, limit: int | None, cursor: str | None) -> dict[str, Any]:
    """Where a page begins and ends. Raises InvalidRequest for a limit or a cursor that cannot be."""
    found: dict[str, Any] = {_LIMIT: checked_limit(limit) + 1}  # one more, to see whether there are more
    if cursor is not None:
        found |= zip(map(_last, order.keys), _opened(cursor, order), strict=True)
    return found


def page_of_rows(rows: Sequence[ItemT], order: Order, limit: int | None) -> Page[ItemT]:
    """The page that rows of such a query are."""
    limit = checked_limit(limit)
    more = len(rows) > limit
    return Page(items=tuple(rows[:limit]), next=_sealed(rows[limit - 1], order) if more else None)


def checked_limit(limit: int | None) -> int:
    """How many rows a page has. Raises InvalidRequest."""
    if limit is None:
        return DEFAULT_LIMIT
    if not 1 <= limit <= MAXIMUM_LIMIT:
        raise InvalidRequest(
            "limit cannot be so",
            cause=f"it is {limit}",
            hint=f"ask for 1 to {MAXIMUM_LIMIT} items, and for the next ones with the cursor",
        )
    return limit


def _behind(order: Order) -> Any:  # noqa: ANN401 - SQLAlchemy's own type
    row = tuple_(*order.keys)
    last = tuple_(*(bindparam(_last(key), type_=key.type) for key in order.keys))
    return row < last if order.descending else row > last


def _last(key: Key) -> str:
    """The name of the parameter that holds what the last row has there."""
    return f"_last_{key.key}"


def _sealed(row: object, order: Order) -> str:
    values = [_plain(getattr(row, key.key)) for key in order.keys]
    body = json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode()
    return base64.urlsafe_b64encode(_check(order, body) + body).decode().rstrip("=")


def _opened(cursor: str, order: Order) -> list[Any]:
    try:
        if len(cursor) > _LONGEST_CURSOR:
            raise ValueError("too long")
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        check, body = data[:_CHECK_BYTES], data[_CHECK_BYTES:]
        if check != _check(order, body):
            raise ValueError("not ours")
        values = json.loads(body)
        return [_parsed(value, key) for value, key in zip(values, order.keys, strict=True)]
    except (ValueError, binascii.Error, TypeError) as error:
        raise InvalidRequest(
            "cursor cannot be so",
            cause="it is not one that this list gave",
            hint="take `next` of the page before as it is, or begin without a cursor",
        ) from error


def _check(order: Order, body: bytes) -> bytes:
    """Finds cursors of other lists, and those that were cut or changed on their way."""
    return sha256(f"{order.name} {order.descending} ".encode() + body)[:_CHECK_BYTES]


def _plain(value: Any) -> Any:  # noqa: ANN401 - a column's value
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def _parsed(value: Any, key: Key) -> Any:  # noqa: ANN401
    if isinstance(key.type, Moment):
        return datetime.fromisoformat(value)
    if not isinstance(value, key.type.python_type):
        raise TypeError(f"{key.key} is no {key.type.python_type.__name__}")
    return value
