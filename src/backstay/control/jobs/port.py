"""What runs jobs, as the rest of the program knows it: ids go in, and each is run to its end once.

An engine only guarantees execution. What a job means, and what people see of it, stands in the catalog.

The promises, which the conformance suite in `tests/control/jobs` tries with each engine:
a job that was submitted runs, also when the process that runs it is killed, then again from its beginning by whoever
is next; submitted twice it runs once; it never runs in two living processes at once; one that was cancelled while it
waited never starts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias

EngineState: TypeAlias = Literal["unknown", "waiting", "running", "done", "cancelled"]
ENDED: Final[frozenset[EngineState]] = frozenset({"done", "cancelled"})
StopReason: TypeAlias = Literal["cancelled", "stopping", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep found: workers that are gone, and jobs that others run now."""

    workers: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()


class Claim(ABC):
    """A job that this process runs now, seen from inside."""

    job_id: str
    worker: str

    @abstractmethod
    def stop_reason(self) -> StopReason | None:
        """Why the work should end before it is done: somebody cancelled it, this process stops, or another has it.

        Cheap enough to be asked at every event.
        """


class Released(BaseException):
    """Raised by what runs a job to give it back unfinished: another process, or the next one, begins it again.

    No Exception, so that no handler of failures takes it for one.
    """


RunJob: TypeAlias = Callable[[Claim], None]


class JobEngine(ABC):
    """Execution of jobs, by their ids."""

    @property
    @abstractmethod
    def worker(self) -> str:
        """What this process is called among those that run jobs."""

    @abstractmethod
    def submit(
        self,
        job_id: str,
        *,
        queue: str,
        priority: int = 0,
        partition: str | None = None,
        not_before: datetime | None = None,
    ) -> None:
        """Have a job run; one that is known already is left as it is. Durable on return.

        A higher `priority` goes first among those that wait in one queue. Of jobs with the same `partition` one runs
        at a time, if the queue is one that has partitions. Raises CatalogUnavailable.
        """

    @abstractmethod
    def state(self, job_id: str) -> EngineState:
        """What the engine knows of a job."""

    @abstractmethod
    def states(self, job_ids: Sequence[str]) -> dict[str, EngineState]:
        """The states of many jobs at once."""

    @abstractmethod
    def cancel(self, job_id: str) -> None:
        """A job that waits never starts; one that runs is asked to end. What has ended, or is unknown, is left."""

    @abstractmethod
    def holders(self) -> frozenset[str]:
        """The workers that have jobs."""

    @abstractmethod
    def sweep(self, gone: Sequence[str] = ()) -> Swept:
        """Let others run what workers had that are known to be `gone`, and what this process took and then forgot.

        Safe to call again, and by several processes at once.
        """

    @abstractmethod
    def forget(self, before: datetime) -> int:
        """Let go of some jobs that ended before this time; how many, 0 when none are left. They are unknown then."""

    @abstractmethod
    def start(self, run: RunJob, *, queues: Sequence[str]) -> None:
        """Begin to run jobs of these queues, and go on with what a process of the same name had left.

        `run` returns when the job has come to an end, good or bad, or raises Released.
        """

    @abstractmethod
    def stop(self, *, timeout_s: float) -> bool:
        """Start no further job; ask those that run to end, and wait so long for it. Whether all have ended.

        What has not ended is left as a crash would leave it.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the database."""
