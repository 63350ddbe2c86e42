"""Records: rows as they were read, for whoever only looks at them.

An entity follows its own changes, and a query that is built anew is also looked at anew: together that takes several
times as long as the database does. Lists that are asked for all the time keep their statements instead, by what they
choose by, and give records.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar, cast

from sqlalchemy import ColumnElement, Row, Select, Table, select
from sqlalchemy.engine import Connection

from backstay.catalog.models.base import Base
from backstay.catalog.pages import Order, Page, page_of_rows, placed, places

EntityT = TypeVar("EntityT", bound=Base)
FiltersT = TypeVar("FiltersT")

_MOST_STATEMENTS: Final = 256  # of one list


class Records(Generic[EntityT]):
    """Rows of one table. A record has the attributes of the entity, and is one to a type checker, but never changes."""

    def __init__(self, entity: type[EntityT]) -> None:
        self.table = cast(Table, entity.__table__)
        self.all: Select[Any] = select(self.table)
        self._record: Any = namedtuple(f"{entity.__name__}Record", self.table.columns.keys())  # type: ignore[misc]  # noqa: PYI024

    def of(self, rows: Iterable[Row[Any]]) -> tuple[EntityT, ...]:
        """Rows of `all` as records."""
        return tuple(map(self._record._make, rows))


class Listing(Generic[EntityT, FiltersT]):
    """A list in pages, by filters: `free` are those whose value is a parameter, all others are part of a statement.

    `conditions` are those of some filters in a dialect; those of `free` filters compare with a bound parameter that has
    the name of the filter.
    """

    def __init__(
        self,
        records: Records[EntityT],
        order: Order,
        conditions: Callable[[FiltersT, str], Sequence[ColumnElement[bool]]],
        *,
        filters: type[FiltersT],
        free: Iterable[str],
    ) -> None:
        self._records, self._order, self._conditions = records, order, conditions
        self._free = tuple(free)
        names: Iterable[str] = filters.__dataclass_fields__  # type: ignore[attr-defined]
        self._others = tuple(name for name in names if name not in self._free)
        self._statements: dict[Hashable, Select[Any]] = {}

    def page(
        self, connection: Connection, filters: FiltersT, *, limit: int | None = None, cursor: str | None = None
    ) -> Page[EntityT]:
        """The records from a cursor on. Raises InvalidRequest for a limit or a cursor that cannot be."""
        values = places(self._order, limit, cursor)
        chosen = {name: value for name in self._free if (value := getattr(filters, name)) is not None}
        statement = self._statement(connection.dialect.name, filters, tuple(chosen), after=cursor is not None)
        rows = connection.execute(statement, values | chosen).all()
        return page_of_rows(self._records.of(rows), self._order, limit)

    def _statement(self, dialect: str, filters: FiltersT, chosen: tuple[str, ...], *, after: bool) -> Select[Any]:
        shape = (dialect, after, chosen, *(_fixed(getattr(filters, name)) for name in self._others))
        found = self._statements.get(shape)
        if found is None:
            if len(self._statements) >= _MOST_STATEMENTS:
                self._statements.clear()
            query = self._records.all.where(*self._conditions(filters, dialect))
            found = self._statements[shape] = placed(query, self._order, after=after)
        return found


def _fixed(value: Any) -> Hashable:  # noqa: ANN401 - any filter
    return tuple(value) if isinstance(value, list) else value
