"""What two do at once on PostgreSQL, in an order that is the same each time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.orm import Session

from backstay.catalog.database import Catalog

ResultT = TypeVar("ResultT")

_WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")


@contextmanager
def first(catalog: Catalog, other: Callable[[], ResultT]) -> Iterator[tuple[Session, Future[ResultT]]]:
    """A transaction of ours, at whose end another one has begun too: it waits for ours, or is done already."""
    with ThreadPoolExecutor(1) as threads:
        with catalog.session() as session:
            told: Future[ResultT] = Future()
            yield session, told
            running = threads.submit(other)
            while not running.done() and not _somebody_waits(catalog):
                time.sleep(0.005)
        if (error := running.exception()) is not None:
            told.set_exception(error)
        else:
            told.set_result(running.result())


def _somebody_waits(catalog: Catalog) -> bool:
    with catalog.looking() as connection:
        return bool(connection.scalar(_WAITING))
