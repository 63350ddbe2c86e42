"""What the interface stands on: the parts of the service that its endpoints use."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.orm import Session

from backstay.api.idempotency import Keys
from backstay.catalog.database import Catalog
from backstay.control.access.principal import Principal
from backstay.control.policies.loading import LoadedPolicies
from backstay.core.clock import Clock
from backstay.core.ids import Random
from backstay.repository.repository import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiOptions:
    """What whoever runs the service decides about its interface.

    `restore_roots` are the directories below which restores by the interface may write; none means anywhere.
    `plan_minutes` is how long a planned restore is good.
    """

    restore_roots: tuple[Path, ...] = ()
    plan_minutes: int = 15
    most_streams: int = 200


class Authenticates(Protocol):
    """Recognises who calls."""

    def authenticate_bearer(self, text: str, address: str) -> Principal: ...


class LimitsRates(Protocol):
    """Counts requests, and raises RateLimited when there are too many."""

    def hit(self, kind: Any, key: str) -> None: ...  # noqa: ANN401


class RecordsAudit(Protocol):
    """Writes the audit log."""

    def record(
        self,
        session: Session,
        *,
        actor: str,
        action: str,
        object: str,  # noqa: A002 - the audit log's word
        outcome: Any,  # noqa: ANN401
        reason: str = "",
        details: Mapping[str, Any] = ...,
        actor_details: Mapping[str, Any] = ...,
    ) -> Any: ...  # noqa: ANN401


class Service(Protocol):
    """What `create_app` takes: the open service."""

    @property
    def catalog(self) -> Catalog: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def access(self) -> Authenticates: ...
    @property
    def rate_limits(self) -> LimitsRates: ...
    @property
    def audit(self) -> RecordsAudit: ...
    @property
    def policies(self) -> LoadedPolicies | None: ...


@dataclass(slots=True, kw_only=True)
class Backing:
    """The service as endpoints see it, with what the interface itself adds."""

    service: Any
    options: ApiOptions
    random: Random = os.urandom
    open_repository: Callable[[], AbstractContextManager[Repository]] | None = None
    keys: Keys = field(init=False)

    def __post_init__(self) -> None:
        self.keys = Keys(catalog=self.catalog, clock=self.clock, random=self.random)

    @property
    def catalog(self) -> Catalog:
        found: Catalog = self.service.catalog
        return found

    @property
    def clock(self) -> Clock:
        found: Clock = self.service.clock
        return found
