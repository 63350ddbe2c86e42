"""Workers that were not heard of any more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from sqlalchemy import select

from backstay.catalog.models import AlertState, Worker
from backstay.control.notifying.conditions.condition import Condition, Look

GRACE: Final = timedelta(seconds=30)  # a lease that was renewed late is no loss
_FORGOTTEN: Final = timedelta(days=1)  # a host that does not come back was taken away


def lost_worker(host: str, pid: int) -> Condition:
    """What holds when a process of a host was lost: its row is gone as soon as its jobs were given to others."""
    return Condition(
        kind="worker_lost",
        subject=f"worker of {host}",
        severity="warning",
        title=f"a worker on {host} was lost",
        ended=f"a worker on {host} is back, or none is awaited any more",
        cause=f"nothing was heard of its process {pid} any more",
        solution="see whether the host runs, and start the worker again; its jobs go to others",
        details={"host": host, "pid": pid},
    )


def lost_workers(look: Look) -> Iterator[Condition]:
    """Each host whose lease has passed, and each that lost a worker and has no new one."""
    workers = list(look.session.scalars(select(Worker).order_by(Worker.started_at)))
    for worker in workers:
        if worker.lease_until < look.now - GRACE:
            yield lost_worker(worker.host, worker.pid)
    told = select(AlertState).where(AlertState.kind == "worker_lost", AlertState.resolved_at.is_(None))
    for alert in look.session.scalars(told):
        host, pid = alert.details["host"], alert.details["pid"]
        replaced = any(
            one.host == host and one.started_at >= alert.began_at - GRACE and one.lease_until >= look.now - GRACE
            for one in workers
            if one.pid != pid
        )
        if not replaced and not _is_back(workers, host, pid, look) and look.now - alert.began_at < _FORGOTTEN:
            yield lost_worker(host, pid)


def _is_back(workers: list[Worker], host: str, pid: int, look: Look) -> bool:
    """Whether the very process is heard of again."""
    return any(one.host == host and one.pid == pid and one.lease_until >= look.now - GRACE for one in workers)
