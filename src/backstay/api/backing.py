"""What the interface stands on: the open service, and what the interface itself adds."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from sqlalchemy import select

from backstay.api.browsing import MOST_EACH, Browsing
from backstay.api.database_addresses import DatabaseAddress
from backstay.api.idempotency import Keys
from backstay.api.listeners import Listeners
from backstay.api.quick import QuickThreads
from backstay.catalog.audit import AuditLog
from backstay.catalog.database import Catalog
from backstay.catalog.index import BackupIndex
from backstay.catalog.models import Job
from backstay.control.access.access import Access
from backstay.control.jobs.jobs import Jobs
from backstay.control.metrics.expectations import Expectations
from backstay.control.metrics.expected import expectations_of
from backstay.control.notifying.notifier import Notifier
from backstay.control.opening.opener import Opener
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.scheduling.schedules import Schedules
from backstay.control.service.service import Service
from backstay.core.clock import Clock
from backstay.core.ids import Random
from backstay.errors import CatalogUnavailable

_TOLD_EVERY_S: Final = 60.0
_MOST_TOLD: Final = 10_000
_RATES: Final = 10  # restores that an estimate looks at
_TELLING_BYTES: Final = 1 << 20  # of a restore that says something about speed


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiOptions:
    """What whoever runs the service decides about its interface.

    `restore_roots` are the directories below which restores by the interface may write; none means anywhere.
    `restore_databases` are those, beside the databases of policies, that such restores may go to.
    `plan_minutes` is how long a planned restore is good, `most_streams` how many may listen to events at once;
    one user may a quarter of that.
    """

    restore_roots: tuple[Path, ...] = ()
    restore_databases: tuple[DatabaseAddress, ...] = ()
    plan_minutes: int = 15
    most_streams: int = 200


@dataclass(slots=True, kw_only=True)
class Backing:
    """The service as endpoints see it."""

    service: Service
    options: ApiOptions
    random: Random = os.urandom
    closing: threading.Event = field(default_factory=threading.Event)  # set when the server ends
    keys: Keys = field(init=False)
    browsing: Browsing = field(init=False)
    downloads: Browsing = field(init=False)  # by themselves: a client that reads slowly keeps nobody from restoring
    listeners: Listeners = field(init=False)
    quick: QuickThreads = field(default_factory=QuickThreads)
    _told: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.keys = Keys(catalog=self.catalog, clock=self.clock, random=self.random)
        self.browsing = Browsing(open=lambda: self.opener().open(), clock=self.clock)
        self.downloads = Browsing(open=lambda: self.opener().open(), clock=self.clock, most_each=MOST_EACH)
        self.listeners = Listeners(self.options.most_streams)

    # -- parts of the service

    @property
    def catalog(self) -> Catalog:
        return self.service.catalog

    @property
    def clock(self) -> Clock:
        return self.service.clock

    @property
    def access(self) -> Access:
        return self.service.access

    @property
    def audit(self) -> AuditLog:
        return self.service.audit

    @property
    def index(self) -> BackupIndex:
        return self.service.index

    @property
    def jobs(self) -> Jobs:
        return self.service.jobs

    @property
    def notifier(self) -> Notifier:
        return self.service.notifier

    @property
    def schedules(self) -> Schedules:
        return self.service.schedules

    @property
    def policies(self) -> LoadedPolicies | None:
        """What the policy file says now, if there is one."""
        return self.service.policies.loaded

    def expected(self) -> Expectations:
        """What metrics tell of even before it came to be."""
        return expectations_of(self.policies)

    def opener(self) -> Opener:
        """What opens the repository. Raises KeyProviderUnsupported."""
        environ, warn = self.service.environ, self.service.warn
        if self.policies is None:
            return Opener.at(None, environ=environ, clock=self.clock, warn=warn)
        return Opener.of_policies(self.policies, environ=environ, clock=self.clock, warn=warn)

    def require_ready(self) -> None:
        """See that jobs can run: the catalog answers, and somebody works. Raises CatalogUnavailable.

        A policy file that was changed and has mistakes since keeps nothing from running: what it said before holds.
        """
        for trouble in self.service.troubles():
            if isinstance(trouble, CatalogUnavailable):
                raise trouble

    def restore_seconds(self, size: int) -> float | None:
        """About how long a restore of so many bytes takes, by the last ones; None if there were none."""
        query = select(Job.result).where(Job.kind == "restore", Job.status == "succeeded")
        with self.catalog.reading() as session:
            results = session.scalars(query.order_by(Job.created_at.desc()).limit(_RATES)).all()
        rates = [
            one["bytes"] / one["duration_s"]
            for one in results
            if one and one.get("bytes", 0) >= _TELLING_BYTES and one.get("duration_s", 0) > 0
        ]
        return round(size / median(rates), 1) if rates else None

    def close(self) -> None:
        """Let go of what was opened for answers."""
        self.quick.close()
        self.browsing.close()
        self.downloads.close()

    def is_news(self, what: str) -> bool:
        """Whether something was not told within the last minute: what comes in floods is written down now and then."""
        now = self.clock.monotonic()
        with self._lock:
            if now - self._told.get(what, float("-inf")) < _TOLD_EVERY_S:
                return False
            if len(self._told) >= _MOST_TOLD:
                self._told.clear()
            self._told[what] = now
        return True
