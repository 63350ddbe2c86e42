"""What jobs of the service work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from backstay.catalog.database import Catalog
from backstay.catalog.index import BackupIndex
from backstay.catalog.models.jobs import Job
from backstay.control.jobs.execution import Execution
from backstay.control.jobs.jobs import Jobs
from backstay.control.manager.manager import BackupManager
from backstay.control.notifying.notifier import Notifier
from backstay.control.opening.opener import Opener
from backstay.control.service.policies import Policies
from backstay.core.clock import Clock
from backstay.core.ids import Random
from backstay.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceContext:
    """The service, as far as jobs use it."""

    policies: Policies
    catalog: Catalog
    index: BackupIndex
    jobs: Jobs
    notifier: Notifier
    data_dir: Path
    environ: Mapping[str, str]
    clock: Clock
    random: Random
    warn: Callable[[str], None]

    def manager(self, execution: Execution) -> BackupManager:
        """What does the work of a job, by the policy file as it is now; its warnings are lines of the job's log."""

        def warn(text: str) -> None:
            execution.log("warning", text)

        if (loaded := self.policies.loaded) is None:
            return BackupManager(database=self.catalog, environ=self.environ, clock=self.clock, warn=warn)
        return BackupManager.of_policies(
            loaded, database=self.catalog, environ=self.environ, clock=self.clock, warn=warn
        )

    def opener(self) -> Opener:
        """What opens the repository. Raises KeyProviderUnsupported."""
        if (loaded := self.policies.loaded) is None:
            return Opener.at(None, environ=self.environ, clock=self.clock, warn=self.warn)
        return Opener.of_policies(loaded, environ=self.environ, clock=self.clock, warn=self.warn)

    @property
    def scratch(self) -> Path:
        """Where restores are tried if the policy names no place."""
        return self.data_dir / "scratch"


def policy_of(job: Job) -> str:
    """The policy that a job is about. Raises InvalidRequest."""
    if job.policy is None:
        raise InvalidRequest(f"a job of the kind {job.kind} needs a policy", cause="none is named", hint="name one")
    return job.policy


def backups_of(job: Job) -> tuple[str, ...]:
    """The backups that a job names, by ids; none if it names none."""
    named = tuple(job.arguments.get("backups") or ())
    return named or (() if job.backup_id is None else (job.backup_id,))
