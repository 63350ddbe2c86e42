"""The queues: which kind of job waits in which, and how many of each run at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from backstay.catalog.models.jobs import JobKind
from backstay.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """So many of its jobs run at once in one process; with partitions, one for each partition in all processes.

    It is looked at every `pace` intervals of the engine: looking is what an idle worker costs.
    """

    name: str
    per_worker: int
    partitions: bool = False
    pace: int = 1


QUEUES: Final[Mapping[str, Queue]] = MappingProxyType(
    {
        queue.name: queue
        for queue in (
            Queue(name="backup", per_worker=2, partitions=True),  # a partition is a policy: it never overlaps itself
            Queue(name="restore", per_worker=2),  # with slots of their own, restores never wait for backups
            Queue(name="verify", per_worker=1, pace=2),
            Queue(name="maintenance", per_worker=1, partitions=True, pace=2),  # one at a time for the repository
            Queue(name="notify", per_worker=2, pace=2),
        )
    }
)

QUEUE_OF: Final[Mapping[JobKind, str]] = MappingProxyType(
    {
        "backup": "backup",
        "restore": "restore",
        "recovery": "restore",
        "verification": "verify",
        "rehearsal": "verify",
        "prune": "maintenance",
        "gc": "maintenance",
        "copy": "maintenance",
        "delete": "maintenance",
        "notification": "notify",
    }
)


def partition_of(kind: JobKind, policy: str | None) -> str | None:
    """What a job must not run beside: for backups those of the same policy, for upkeep all other upkeep."""
    queue = QUEUE_OF[kind]
    if queue == "backup":
        return None if policy is None else f"policy:{policy}"
    return "repository" if queue == "maintenance" else None


def queues_named(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """The queues of a list with commas; all for None. Raises InvalidRequest."""
    if names is None:
        return tuple(QUEUES)
    given = [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]
    found = tuple(dict.fromkeys(name for name in given if name))
    strange = [name for name in found if name not in QUEUES]
    if strange or not found:
        raise InvalidRequest(
            f"there is no queue {strange[0]!r}" if strange else "no queue is named",
            cause=f"the queues are {', '.join(QUEUES)}",
            hint="give --queues backup,restore, or leave it out for all",
        )
    return found
