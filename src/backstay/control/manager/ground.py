"""What every part of the manager stands on: its setup, its records, and the repository."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Self

from backstay.control.manager.counted import CountedOpening
from backstay.control.manager.keeping import Recording, keep_records
from backstay.control.manager.setup import Opening, Setup
from backstay.control.policies.policy import Policy
from backstay.errors import CorruptedBackup, InvalidRequest, NotFound
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest, is_values

if TYPE_CHECKING:
    from backstay.catalog.database import Catalog


def go_on() -> None:
    """A checkpoint of those who never ask for the end."""


class Ground:
    """Opens the repository for each call anew, and the catalog once, when it is needed."""

    def __init__(self, setup: Setup, database: str | Path | Catalog | None, records: Recording | None = None) -> None:
        self._setup, self._database = setup, database
        self._records = records
        self._opening = Lock()

    @property
    def records(self) -> Recording:
        """Where runs are recorded. Raises CatalogUnavailable, CatalogOutdated."""
        with self._opening:
            if self._records is None:
                self._records = keep_records(self._database, environ=self._setup.environ, clock=self._setup.clock)
            return self._records

    @property
    def opener(self) -> Opening:
        """What opens the repository, and counts what is asked of its stores."""
        return self._counted(self._setup)

    @property
    def first_store(self) -> Opening:
        """The same, of the one store that decides what is in the repository, without its copies."""
        return CountedOpening(inner=self._setup.opener(copies=False), catalog=lambda: self.records.catalog)

    def close(self) -> None:
        """Let go of the catalog, unless it was given open."""
        records, self._records = self._records, None
        if records is not None:
            records.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- for the parts

    def _counted(self, setup: Setup) -> Opening:
        return CountedOpening(inner=setup.opener(), catalog=lambda: self.records.catalog)

    @contextmanager
    def _reading(self) -> Iterator[Repository]:
        """The repository, for its snapshots alone."""
        with self.opener.open(index=False) as repository:
            yield repository

    def _known(self, repository: Repository, damaged: list[str] | None = None) -> list[Manifest]:
        """The snapshots that can be read; others are warned about, and named in `damaged`."""

        def note(name: str, error: Exception) -> None:
            self._setup.warn(f"{name} cannot be read: {error}")
            if damaged is not None:
                damaged.append(name)

        with repository.passing_unreadable():
            return [one for one in repository.snapshots.shown(on_damage=note) if not is_values(one)]

    def _meant(
        self, repository: Repository, text: str, *, at: datetime | None = None, path: bytes | None = None
    ) -> tuple[Manifest, ...]:
        """The snapshots that a text means. Raises NotFound, InvalidRequest, CorruptedBackup where it cannot be told."""
        damaged: list[str] = []
        known, now = self._known(repository, damaged), self._setup.clock.now()
        meant = self._setup.naming.meant(known, text, now=now, at=at, path=path)
        if damaged and not all(one.id.startswith(text.lower()) for one in meant):
            newest = max(meant, key=lambda one: one.time_ns)
            raise CorruptedBackup(
                f"it cannot be told which backup {text!r} means",
                cause=f"{damaged[0]} cannot be read, and may be it",
                hint=f"the newest that can be read is {newest.id} of {newest.time:%Y-%m-%d %H:%M:%S}: choose it by its "
                "id; put the object back from a copy, or give it up with `backstay repair snapshots`",
            )
        return meant

    def _policy(self, name: str) -> Policy:
        """A policy of the file. Raises NotFound, InvalidRequest."""
        if self._setup.policies is None:
            raise InvalidRequest(
                f"there is no policy {name!r}",
                cause="no policy file was opened",
                hint="use BackupManager.open(FILE), or execute a BackupRequest",
            )
        return self._setup.policies.policy(name)

    def _only_policy(self) -> str:
        """The one policy of the file. Raises InvalidRequest, NotFound."""
        names: Sequence[str] = [] if self._setup.policies is None else self._setup.policies.content.names
        if self._setup.policies is not None and not names:
            raise NotFound(f"{self._setup.policies.file} has no policies", hint="docs/policies.md has an example")
        if len(names) != 1:
            told = f"the policies are {', '.join(names)}" if names else "there is neither a source nor a policy"
            raise InvalidRequest(
                "it is not said what to do it with",
                cause=told,
                hint="name one, or give sources to `configure`",
            )
        return names[0]


Checkpoint = Callable[[], None]
