"""What the service does by itself beside running jobs, and how often."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backstay.catalog.checkpoints import CheckpointFile, add_checkpoint, audit_signer
from backstay.catalog.database import Catalog
from backstay.catalog.index import BackupIndex
from backstay.control.access.access import Access
from backstay.control.metrics.measuring import measure
from backstay.control.metrics.repositories import record_sample
from backstay.control.notifying.alerts import Alerts
from backstay.control.notifying.notifier import Notifier
from backstay.control.notifying.of_policies import sync_from_policies
from backstay.control.notifying.settling import Settling
from backstay.control.opening.opener import Opener
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.repository_settings import repository_settings
from backstay.control.runs.capturing import policies_of_snapshots
from backstay.control.scheduling.schedules import Schedules
from backstay.control.scheduling.ticker import Ticker
from backstay.control.service.background import Task
from backstay.control.service.policies import Policies
from backstay.core.clock import Clock
from backstay.core.ids import Random

TICK_S: Final = 2.0
WATCH_S: Final = 30.0
RELOAD_S: Final = 5.0
SETTLE_S: Final = 2.0
DELIVER_S: Final = 5.0
EVALUATE_S: Final = 30.0
REFRESH_S: Final = 300.0
MEASURE_S: Final = 900.0
CHECKPOINT_S: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """The tasks of a service that has schedules. Any number of processes may have the same."""

    access: Access
    catalog: Catalog
    policies: Policies
    schedules: Schedules
    ticker: Ticker
    notifier: Notifier
    alerts: Alerts
    settling: Settling
    index: BackupIndex
    data_dir: Path
    environ: Mapping[str, str]
    clock: Clock
    random: Random
    warn: Callable[[str], None]

    def tasks(self) -> list[Task]:
        return [
            Task(name="reading the policy file", every_s=RELOAD_S, run=self.reload),
            Task(name="schedules", every_s=TICK_S, run=self.ticker.tick),
            Task(name="watching configurations", every_s=WATCH_S, run=self.ticker.watch),
            Task(name="telling of finished jobs", every_s=SETTLE_S, run=self.settling.sweep),
            Task(name="sending messages", every_s=DELIVER_S, run=self.notifier.begin_due),
            Task(name="alerts", every_s=EVALUATE_S, run=self.alerts.evaluate),
            Task(name="listing backups", every_s=REFRESH_S, run=self.refresh),
            Task(name="measuring the repository", every_s=MEASURE_S, run=self.measure),
            Task(name="signing the audit log", every_s=CHECKPOINT_S, run=self.checkpoint),
        ]

    def reload(self) -> bool:
        """Take over what has changed in the policy file. Raises PolicyInvalid, and keeps what held before."""
        if not self.policies.reload():
            return False
        self.take_over()
        return True

    def take_over(self) -> None:
        """Make schedules, targets, matchers and the bounds of access those of the policy file."""
        loaded = self.policies.loaded
        self.access.use(self.policies.access)
        self.schedules.sync_from_policies(loaded)
        with self.catalog.session() as session:
            sync_from_policies(session, self.notifier, loaded)

    def refresh(self) -> None:
        """Let the list of backups be that of the repository, whoever made or deleted them."""
        if (opener := self._opener()) is not None:
            with opener.open(index=False) as repository:
                self.index.refresh(repository, policies=_policies_of_names(self.policies.loaded))

    def measure(self) -> None:
        """Note how large the repository is, and how old its keys are."""
        if (opener := self._opener()) is None:
            return
        with opener.open(index=False) as repository:
            samples = measure(repository, self.clock.now(), quota_bytes=opener.settings.max_size)
        with self.catalog.session() as session:
            for sample in samples:
                record_sample(session, sample)

    def checkpoint(self) -> None:
        """Sign the head of the audit log.

        Order: the catalog first, then the file beside the key; a crash between leaves one that is in the catalog alone.
        """
        signer = audit_signer(self.data_dir / "audit.key", self.random)
        with self.catalog.session() as session:
            made = add_checkpoint(session, signer, self.clock.now())
        if made is not None:
            CheckpointFile(self.data_dir / "audit.checkpoints").append(made)

    def _opener(self) -> Opener | None:
        """The repository of the policy file, once there is one: the first backup makes it."""
        if (loaded := self.policies.loaded) is None or repository_settings(loaded, self.environ).address is None:
            return None
        opener = Opener.of_policies(loaded, environ=self.environ, clock=self.clock, warn=self.warn)
        return opener if opener.exists() else None


def _policies_of_names(loaded: LoadedPolicies | None) -> dict[str, str]:
    return {} if loaded is None else policies_of_snapshots(loaded)
