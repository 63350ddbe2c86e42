"""What whoever starts the service decides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from backstay.control.agents.processes import LEASE_S as AGENT_LEASE_S
from backstay.control.jobs.queues import QUEUES
from backstay.control.jobs.workers import BEAT_S, LEASE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """`data_dir` holds keys, and the databases unless `database` is the address of one. Without `queues` no job is run.

    `own_schedules` is False for processes that only run jobs.
    """

    data_dir: Path
    config: Path | None = None
    database: str | None = None
    queues: tuple[str, ...] = tuple(QUEUES)
    own_schedules: bool = True
    lease_s: float = LEASE_S
    agent_lease_s: float = AGENT_LEASE_S
    beat_s: float = BEAT_S
    sweep_s: float = 5.0
    poll_s: float | None = None

    @property
    def embedded(self) -> bool:
        """Whether all is in files of the data directory, which one process has alone."""
        return self.database is None or self.database.startswith("sqlite:")

    def catalog_url(self, directory: Path) -> str:
        return self.database or f"sqlite:///{quote(str(directory / 'catalog.db'))}"

    def jobs_url(self, directory: Path) -> str:
        """Files have one writer at a time: jobs, which are polled for, have their own."""
        if self.database is not None and not self.embedded:
            return self.database
        return f"sqlite:///{quote(str(directory / 'jobs.db'))}"
