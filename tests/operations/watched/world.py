"""A tree of real files, a repository in memory, and a watch of the one into the other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from backstay.core.clock import Clock, SystemClock
from backstay.core.events import Event, Warned
from backstay.operations.backup.request import BackupKind, BackupOptions, BackupResult
from backstay.operations.backup.run import run_backup
from backstay.operations.backup.watching_files import Pace, WatchedFiles
from backstay.repository.nodes import Node
from backstay.repository.repository import Environment, Repository
from backstay.repository.trees.listings import find_node
from backstay.sources.change_journal import ChangeJournal
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.sources.inotify import Inotify, Notices
from backstay.storage.memory import MemoryStorage
from tests.crash.small_world import SECRET


class CountingJournal(ChangeJournal):
    """Remembers which directories the last walk opened."""

    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self.walked: list[bytes] = []

    def opened(self, fd: int, path: bytes, *, device: int, named: frozenset[bytes], leads: bool) -> None:
        self.walked.append(path)
        super().opened(fd, path, device=device, named=named, leads=leads)


def never_shared(fd: int) -> bool:
    """Where tests run there may be any file system."""
    del fd
    return False


@dataclass
class World:
    """`roots` are watched."""

    roots: list[Path]
    patterns: tuple[bytes, ...] = ()
    exclude_caches: bool = False
    one_file_system: bool = False
    notices: Callable[[], Notices] = Inotify
    shared: Callable[[int], bool] = never_shared
    pace: Pace = field(default_factory=Pace)
    clock: Clock = field(default_factory=SystemClock)
    warnings: list[str] = field(default_factory=list)
    kind: BackupKind = "incremental"
    events: list[Event] = field(default_factory=list)
    stopped: Callable[[], bool] = lambda: False

    def __enter__(self) -> Self:
        self.repository = Repository.create(MemoryStorage(), SECRET, environment=Environment(threads=1))
        self.filters = Filters(self.patterns, exclude_caches=self.exclude_caches, one_file_system=self.one_file_system)
        places = [bytes(root) for root in self.roots]
        self.journal = CountingJournal(
            places, filters=self.filters, clock=self.clock, notices=self.notices, shared=self.shared
        )
        self.watched = WatchedFiles(
            self.repository,
            self.journal,
            lambda: self.source(self.journal),
            BackupOptions(host="host", name="watched", kind=self.kind),
            self.pace,
            self.clock,
            self._is_stopped,
            self._sink,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with closing(self.journal), self.repository:
            pass

    def _sink(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Warned):
            self.warnings.append(f"{event.path}: {event.message}" if event.path else event.message)

    def _is_stopped(self) -> bool:
        return self.stopped()

    def source(self, journal: ChangeJournal | None = None) -> FilesystemSource:
        paths = [bytes(root) for root in self.roots]
        return FilesystemSource(paths, filters=self.filters, clock=self.clock, observer=journal)

    def snapshot(self) -> BackupResult:
        """The next one of the watch."""
        self.journal.walked.clear()
        return self.watched.back_up()

    def shown(self) -> list[Node | None]:
        """What the last snapshot of the watch holds of each root."""
        return self._nodes("watched")

    def fresh(self) -> list[Node | None]:
        """What a backup shows that reads everything now."""
        options = BackupOptions(host="host", name="fresh", kind="full")
        run_backup(self.repository, self.source(), options)
        return self._nodes("fresh")

    def _nodes(self, name: str) -> list[Node | None]:
        newest = [one for one in self.repository.snapshots.live() if one.name == name][-1]
        return [find_node(newest.root, bytes(root), self.repository.reader) for root in self.roots]

    def walked(self) -> set[str]:
        """The directories below the first root that the last walk opened, relative to it."""
        paths = [Path(path.decode()) for path in self.journal.walked]
        root = self.roots[0]
        return {str(path.relative_to(root)) for path in paths if path.is_relative_to(root)}
