"""How a manager is set up: which repository, whose policies, how long backups are kept."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from backstay.codec.compression import Compressor
from backstay.control.manager.backups import Naming
from backstay.control.manager.sources import BackupSource
from backstay.control.opening.handed import HandedStore
from backstay.control.opening.opener import Opener
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.policy import BackupManagerSettings, Compression
from backstay.control.policies.repository_settings import repository_settings
from backstay.control.policies.values import zone_of
from backstay.core.clock import Clock, SystemClock
from backstay.errors import InvalidRequest
from backstay.repository.repository import Repository
from backstay.storage.backend import StorageBackend

_LOG = logging.getLogger("backstay")


class Opening(Protocol):
    """What opens a repository, and makes it if it never was."""

    def open(self, *, index: bool = True, grows: bool = False) -> AbstractContextManager[Repository]: ...
    def prepare(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """All that a manager was told; `configure` makes another one."""

    storage_location: str | StorageBackend | None = None
    password: str | None = field(default=None, repr=False)
    compressor: Compressor = field(default_factory=Compressor)
    retention_days: int | None = None
    max_size: int | None = None
    sources: tuple[BackupSource | str | Path, ...] = ()
    policies: LoadedPolicies | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    clock: Clock = field(default_factory=SystemClock)
    warn: Callable[[str], None] = _LOG.warning
    notice: Callable[[str], None] | None = None  # of what nobody must miss: where the key of a new repository lies
    opens: Opening | None = None  # in place of what all this says of the repository

    def opener(self, *, copies: bool = True) -> Opening:
        """The repository that is meant, with or without its copies. Raises KeyProviderUnsupported."""
        if self.opens is not None:
            return self.opens
        if isinstance(self.storage_location, StorageBackend):
            return HandedStore(
                store=self.storage_location,
                environ=self.environ,
                clock=self.clock,
                warn=self.warn,
                compressor=self.compressor,
                password=self.password,
            )
        if self.policies is not None and self.storage_location is None:
            found = Opener.of_policies(
                self.policies,
                environ=self.environ,
                clock=self.clock,
                warn=self.warn,
                password=self.password,
                notice=self.notice,
            )
            return found if copies else found.without_copies()
        return Opener.at(
            self.storage_location,
            environ=self.environ,
            clock=self.clock,
            warn=self.warn,
            compressor=self.compressor,
            password=self.password,
            max_size=self.max_size,
            notice=self.notice,
        )

    @property
    def copies(self) -> tuple[str, ...]:
        """The addresses of the copies that the policy file names. Raises KeyProviderUnsupported."""
        if self.policies is None or self.storage_location is not None or self.opens is not None:
            return ()
        return repository_settings(self.policies, self.environ).mirrors

    @property
    def settings(self) -> BackupManagerSettings:
        """What holds for policies that say nothing else."""
        return BackupManagerSettings() if self.policies is None else self.policies.content.backup_manager

    @property
    def zone(self) -> tzinfo:
        """Whose days names of backups have."""
        scheduling = self.settings.scheduling
        return UTC if scheduling is None else zone_of(scheduling.timezone)

    @property
    def naming(self) -> Naming:
        return Naming(policies=self.names, zone=self.zone)

    @property
    def names(self) -> dict[str, frozenset[str]]:
        """The snapshots' names of each policy."""
        if self.policies is None:
            return {}
        return {
            name: frozenset(origin.snapshot_name(name) for origin in policy.sources)
            for name, policy in self.policies.content.policies.items()
        }

    def policy_of(self, snapshot: str | None) -> str | None:
        """The policy whose source has snapshots of this name."""
        return next((policy for policy, names in self.names.items() if snapshot in names), None)


def location_of(place: str | Path | StorageBackend | None) -> str | StorageBackend | None:
    """A place as an address, if it is not a store itself. Raises InvalidRequest for an empty text."""
    if place == "":
        raise InvalidRequest(
            "the address of the repository is empty",
            cause="a text without characters names no place",
            hint="give an address, or leave it out for the default repository",
        )
    return os.fspath(place) if isinstance(place, Path) else place


def compressor_of(compression: bool | str, level: int | None = None) -> Compressor:
    """What compresses as it is said: on or off, or by the name of an algorithm. Raises InvalidRequest."""
    algorithm = compression if isinstance(compression, str) else "zstd"
    try:
        return Compression(enabled=bool(compression), algorithm=algorithm, level=level).compressor()  # type: ignore[arg-type]
    except ValidationError as error:
        raise InvalidRequest(
            f"nothing compresses by {compression!r}",
            cause=error.errors(include_url=False)[0]["msg"],
            hint="write True, False, 'zstd', 'gzip' or 'none', and a level that it has",
        ) from error


def listed_sources(
    sources: BackupSource | str | Path | Sequence[BackupSource | str | Path],
) -> tuple[BackupSource | str | Path, ...]:
    """One source or several."""
    return tuple(sources) if isinstance(sources, Sequence) and not isinstance(sources, str) else (sources,)
