"""Whether runs are recorded, and where: in a catalog if there can be one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from backstay.core.clock import Clock
from backstay.core.environment import data_directory
from backstay.core.ids import new_ulid
from backstay.errors import ServerExtraMissing

if TYPE_CHECKING:
    from backstay.catalog.database import Catalog
    from backstay.catalog.models.jobs import JobKind
    from backstay.control.manager.results import RestoreRecord
    from backstay.repository.repository import Repository

FILE: Final = "catalog.db"


class Recorded(Protocol):
    """A run that is recorded; what it gave is set before it ends."""

    id: str
    result: dict[str, Any] | None
    backup_id: str | None


class Recording(Protocol):
    """Where runs are recorded."""

    def run(
        self,
        kind: JobKind,
        arguments: Mapping[str, Any],
        *,
        job_id: str | None = None,
        policy: str | None = None,
        scope: str = "/",
    ) -> AbstractContextManager[Recorded]: ...
    def restores(self, *, limit: int) -> list[RestoreRecord]: ...
    def restored(self, ident: str) -> dict[str, Any]: ...
    def rates(self) -> list[float]: ...
    def made(self, repository: Repository, ids: Sequence[str], *, run: str, policy: str | None) -> None: ...
    def runs_of(self, ids: Sequence[str]) -> set[str | None]: ...
    def removed(self, repository: Repository, ids: Iterable[str]) -> None: ...
    @property
    def catalog(self) -> Catalog: ...
    def close(self) -> None: ...


def keep_records(database: str | Path | Catalog | None, *, environ: Mapping[str, str], clock: Clock) -> Recording:
    """The records of a catalog. Where its libraries are not installed and no catalog is named, there are none.

    Raises CatalogUnavailable, CatalogOutdated, InvalidRequest, ServerExtraMissing.
    """
    if importlib.util.find_spec("sqlalchemy") is None or importlib.util.find_spec("alembic") is None:
        if database is None:
            return Unrecorded(clock)
        raise _missing()
    from backstay.catalog.database import Catalog
    from backstay.control.manager.records import Records

    if isinstance(database, Catalog):
        return Records(database, clock, lent=True)
    if database is None:
        database = data_directory(environ) / FILE
    url = database if isinstance(database, str) and "://" in database else f"sqlite:///{Path(database).absolute()}"
    if url.startswith("sqlite:////"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    catalog = Catalog.open(url)
    try:
        catalog.migrate()
        records = Records(catalog, clock)
        records.mend()
    except BaseException:
        catalog.close()
        raise
    return records


class Unrecorded:
    """No records: everything works but for what is asked of the past."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def run(
        self,
        kind: JobKind,
        arguments: Mapping[str, Any],
        *,
        job_id: str | None = None,
        policy: str | None = None,
        scope: str = "/",
    ) -> AbstractContextManager[Recorded]:
        del kind, arguments, policy, scope
        return nullcontext(_Passing(job_id or new_ulid(self._clock.now_ns())))

    def restores(self, *, limit: int) -> list[RestoreRecord]:
        del limit
        raise _missing()

    def restored(self, ident: str) -> dict[str, Any]:
        del ident
        raise _missing()

    def rates(self) -> list[float]:
        return []

    def made(self, repository: Repository, ids: Sequence[str], *, run: str, policy: str | None) -> None:
        """Nobody is told."""

    def runs_of(self, ids: Sequence[str]) -> set[str | None]:
        del ids
        return {None}

    def removed(self, repository: Repository, ids: Iterable[str]) -> None:
        """Nobody is told."""

    @property
    def catalog(self) -> Catalog:
        raise _missing()

    def close(self) -> None:
        """Nothing is open."""


class _Passing:
    """A run that leaves no trace but what its caller keeps of it."""

    def __init__(self, ident: str) -> None:
        self.id = ident
        self.result: dict[str, Any] | None = None
        self.backup_id: str | None = None


def _missing() -> ServerExtraMissing:
    return ServerExtraMissing("there are no records of runs", cause="the catalog's libraries are not installed")
