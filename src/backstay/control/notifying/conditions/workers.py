"""Workers that were not heard of any more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from sqlalchemy import select

from backstay.catalog.models import Worker
from backstay.control.notifying.conditions.condition import Condition, Look, told_time

_GRACE: Final = timedelta(seconds=30)  # a lease that was renewed late is no loss


def lost_workers(look: Look) -> Iterator[Condition]:
    """Each worker whose lease has passed; one that ends in order leaves no row."""
    rows = look.session.scalars(select(Worker).where(Worker.lease_until < look.now - _GRACE).order_by(Worker.id))
    for worker in rows:
        yield Condition(
            kind="worker_lost",
            subject=f"worker {worker.id}",
            severity="warning",
            title=f"a worker on {worker.host} was lost",
            ended=f"the worker on {worker.host} is back, or was replaced",
            cause=f"process {worker.pid} was last heard of before {told_time(worker.lease_until)}",
            solution="see whether the host runs, and start the worker again; its jobs go to others",
        )
