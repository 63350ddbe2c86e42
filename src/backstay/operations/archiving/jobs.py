"""WAL files on their way into the repository: each is stored once, however often and by whom it is asked for.

What is known of a file holds for these very bytes: one of the same name in another state is stored, or refused, anew.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from backstay.operations.archiving.wal_file import Archiver, ArchiveResult, FileState, Offered

KEPT: Final = 64  # files that were asked for and are stored: a server that crashed asks again


@dataclass(slots=True)
class _Job:
    offered: Offered
    state: FileState
    is_asked: bool
    result: Future[ArchiveResult] = field(default_factory=Future)

    def run(self, archiver: Archiver) -> None:
        try:
            result = archiver.store(self.offered)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for it, and raised there
            self.result.set_exception(error)
        else:
            self.result.set_result(result)
        finally:
            self.offered.close()

    def has_failed(self) -> bool:
        return self.result.done() and self.result.exception() is not None


class ArchiveJobs:
    """One thread for each file that is being stored. One that hangs in a store ends with the process."""

    def __init__(self, archiver: Archiver) -> None:
        self._archiver = archiver
        self._jobs: OrderedDict[str, _Job] = OrderedDict()  # by the names of files, the oldest first
        self._lock = threading.Lock()
        self.found = 0  # how many were under way, or stored, when they were asked for first

    def ask(self, offered: Offered) -> Future[ArchiveResult]:
        """Store a file that the server asks for, unless that was done: the result is there when it is durable."""
        return self._begin(offered, is_asked=True)

    def prepare(self, offered: Offered) -> None:
        """Store a file before the server asks for it. A failure waits for that, and is then forgotten."""
        self._begin(offered, is_asked=False)

    def unasked(self) -> int:
        """How many files were prepared and not asked for yet."""
        with self._lock:
            return sum(not job.is_asked for job in self._jobs.values())

    def knows(self, name: str) -> bool:
        with self._lock:
            return name in self._jobs

    def forget_unasked(self, names: Collection[str]) -> None:
        """Forget prepared files other than these: nobody will ask for them any more."""
        with self._lock:
            for name, job in list(self._jobs.items()):
                if not job.is_asked and job.result.done() and name not in names:
                    del self._jobs[name]

    def _begin(self, offered: Offered, *, is_asked: bool) -> Future[ArchiveResult]:
        state = FileState.of(offered.descriptor)
        with self._lock:
            known = self._jobs.get(offered.name)
            if known is not None and known.state == state and not known.has_failed():
                self.found += is_asked and not known.is_asked
                known.is_asked |= is_asked
                offered.close()
                return known.result
            job = _Job(offered, state, is_asked)
            self._jobs[offered.name] = job
            self._jobs.move_to_end(offered.name)
            self._trim()
        threading.Thread(target=job.run, args=(self._archiver,), name="archive", daemon=True).start()
        return job.result

    def _trim(self) -> None:
        done = [name for name, job in self._jobs.items() if job.is_asked and job.result.done()]
        for name in done[:-KEPT]:
            del self._jobs[name]
