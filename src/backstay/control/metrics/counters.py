"""Counters in the catalog: all processes add to the same, and no restart loses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import rfc8785
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.orm import Session

from backstay.catalog.models import Counter

Labels = Mapping[str, str]


def count(session: Session, name: str, labels: Labels, by: float = 1) -> None:
    """Add to a counter, in the transaction of what is counted; one that there is not begins at 0."""
    values: dict[str, Any] = {"name": name, "labels": rfc8785.dumps(dict(labels)).decode(), "value": by}
    insert = insert_postgresql if session.get_bind().dialect.name == "postgresql" else insert_sqlite
    added = insert(Counter).values(values)
    session.execute(added.on_conflict_do_update(index_elements=["name", "labels"], set_={"value": Counter.value + by}))


def counted(session: Session) -> list[Counter]:
    """All counters, by name."""
    return list(session.scalars(select(Counter).order_by(Counter.name, Counter.labels)))
