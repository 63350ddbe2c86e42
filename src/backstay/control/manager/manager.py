"""Everything that can be done with backups, from Python: what commands, jobs and the interface do too."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from backstay.control.manager.copying import Copying
from backstay.control.manager.custody import Custody
from backstay.control.manager.ground import Ground
from backstay.control.manager.keeping import Recording
from backstay.control.manager.making import Making
from backstay.control.manager.restores import Restores
from backstay.control.manager.setup import Setup, compressor_of, listed_sources, location_of
from backstay.control.manager.sources import BackupSource
from backstay.control.manager.telling import Telling
from backstay.control.manager.verifications import Verifications
from backstay.control.policies.loading import LoadedPolicies, load
from backstay.core.arguments import checks_arguments
from backstay.core.clock import Clock
from backstay.core.sizes import parse_size
from backstay.errors import InvalidRequest
from backstay.storage.backend import StorageBackend

if TYPE_CHECKING:
    from backstay.catalog.database import Catalog
    from backstay.control.scheduling.schedules import Schedules


@checks_arguments
class BackupManager(Making, Custody, Copying, Restores, Verifications, Telling):
    """Backups, restores, checks and their records. Each call opens the repository for itself, so that threads may share
    a manager. `events` sinks and `checkpoint` may raise Interrupted, which ends a call; what it had stored is used by
    the next one.

    The catalog keeps a record of each run: `database` is its address or file, or a catalog that is open; the file
    `catalog.db` in the user's data directory if not given. A call with `job_id` is that job's, which has a record.

    `warn` is told what is odd; `notice` what nobody must miss, which is where the key of a new repository lies. The log
    gets as warnings what has nobody else.
    """

    def __init__(
        self,
        storage_location: str | Path | StorageBackend | None = None,
        *,
        password: str | None = None,
        database: str | Path | Catalog | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        warn: Callable[[str], None] | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        given = {"environ": environ, "clock": clock, "warn": warn, "notice": notice}
        setup = Setup(
            storage_location=location_of(storage_location),
            password=password,
            **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
        )
        super().__init__(setup, database)

    @classmethod
    def open(
        cls,
        policy_file: str | Path,
        *,
        password: str | None = None,
        database: str | Path | Catalog | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        warn: Callable[[str], None] | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> Self:
        """The manager of a policy file. Raises PolicyInvalid with all its mistakes."""
        loaded = load(Path(policy_file), os.environ if environ is None else environ)
        return cls.of_policies(
            loaded, password=password, database=database, environ=environ, clock=clock, warn=warn, notice=notice
        )

    @classmethod
    def of_policies(
        cls,
        policies: LoadedPolicies,
        *,
        password: str | None = None,
        database: str | Path | Catalog | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        warn: Callable[[str], None] | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> Self:
        """The manager of policies that were loaded."""
        made = cls(password=password, database=database, environ=environ, clock=clock, warn=warn, notice=notice)
        made._setup = replace(made._setup, policies=policies)
        return made

    @classmethod
    def of_setup(cls, setup: Setup, records: Recording) -> Self:
        """The manager of somebody who knows how to open the repository, and where runs are recorded."""
        made = cls.__new__(cls)
        Ground.__init__(made, setup, None, records)
        return made

    def configure(
        self,
        *,
        storage_location: str | Path | StorageBackend | None = None,
        password: str | None = None,
        encryption: bool = True,
        compression: bool | str | None = None,
        compression_level: int | None = None,
        retention_days: int | None = None,
        max_size: int | str | None = None,
        sources: BackupSource | str | Path | Sequence[BackupSource | str | Path] | None = None,
    ) -> Self:
        """Set what is given and leave the rest as it is; the manager itself. Raises InvalidRequest.

        Backups that are older than `retention_days` go when the next one of their source is made. `sources` are what
        `create_backup` takes if it is given none.
        """
        if not encryption:
            raise InvalidRequest("repositories are always encrypted", hint="leave `encryption` out")
        if retention_days is not None and retention_days < 1:
            raise InvalidRequest("backups are kept for a day at least", cause=f"retention_days is {retention_days}")
        if compression is None and compression_level is not None:
            raise InvalidRequest(
                "it is not said what has this level of compression",
                cause=f"compression_level is {compression_level}, and compression is left out",
                hint="give compression='zstd' or 'gzip' with it",
            )
        size = parse_size(max_size) if isinstance(max_size, str) else max_size
        if size is not None and size < 1:
            raise InvalidRequest("a repository needs room", cause=f"max_size is {max_size}")
        changes = {
            "storage_location": location_of(storage_location),
            "password": password,
            "compressor": None if compression is None else compressor_of(compression, compression_level),
            "retention_days": retention_days,
            "max_size": size,
            "sources": None if sources is None else listed_sources(sources),
        }
        given = {name: value for name, value in changes.items() if value is not None}
        self._setup = replace(self._setup, **given)  # type: ignore[arg-type]
        return self

    @property
    def schedules(self) -> Schedules:
        """When policies run: to list, add, change and pause. They run while `backstay serve` or a worker does."""
        from backstay.control.scheduling.schedules import Schedules

        return Schedules(self.records.catalog, self._setup.clock, policies=lambda: self._setup.policies)
