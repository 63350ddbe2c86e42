"""A dry run tells what the next backup would do, and stores nothing."""

from __future__ import annotations

import errno
from dataclasses import asdict
from typing import NoReturn

import pytest

from backstay.core.events import Event, Progress
from backstay.operations.backup.run import BackupKind, BackupOptions, BackupResult, run_backup
from backstay.repository.repository import Environment, Repository
from backstay.sources.source import Stat
from backstay.storage.memory import MemoryStorage
from backstay.testing import FakeClock
from tests.crash.small_world import SECRET, MemoryDirectory, MemorySource, Tree, small_tree

TOLD = (
    "kind",
    "parent",
    "files_new",
    "files_changed",
    "files_unchanged",
    "files",
    "dirs",
    "bytes_scanned",
    "bytes_read",
)


class Rehearsed:
    """A repository, and each backup of it tried before it is made."""

    def __init__(self) -> None:
        clock = FakeClock()
        self.storage = MemoryStorage(clock=clock)
        self.repository = Repository.create(self.storage, SECRET, environment=Environment(clock=clock, threads=1))
        self.events: list[Event] = []

    def back_up(self, tree: Tree, kind: BackupKind, *, dry_run: bool) -> BackupResult:
        options = BackupOptions(host="host", kind=kind, dry_run=dry_run)
        return run_backup(self.repository, MemorySource(tree), options, events=self.events.append)

    def both(self, tree: Tree, kind: BackupKind = "incremental") -> tuple[BackupResult, BackupResult]:
        names = {info.name for info in self.storage.list()}
        told = self.back_up(tree, kind, dry_run=True)
        assert {info.name for info in self.storage.list()} == names
        return told, self.back_up(tree, kind, dry_run=False)


@pytest.mark.parametrize("kind", ["incremental", "differential", "full"])
def test_it_tells_what_the_backup_does(kind: BackupKind) -> None:
    rehearsed = Rehearsed()
    changed = {**small_tree(), b"/top2": b"changed", b"/new": b"new"}
    del changed[b"/top"]
    for tree in (small_tree(), changed):
        told, done = rehearsed.both(tree, kind)
        assert told.snapshot is None
        assert told.bytes_added == 0
        assert {key: asdict(told)[key] for key in TOLD} == {key: asdict(done)[key] for key in TOLD}


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_directory_that_cannot_be_entered_counts(monkeypatch: pytest.MonkeyPatch, dry_run: bool) -> None:
    def closed(self: MemoryDirectory, entry: Stat) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(MemoryDirectory, "enter", closed)
    found = Rehearsed().back_up({b"/dir/file": b"x", b"/other/file": b"x"}, "full", dry_run=dry_run)
    assert len(found.errors) == 2
    assert (found.files, found.dirs) == (0, 3)


def test_it_reads_nothing_and_tells_how_far_it_is() -> None:
    read: list[bytes] = []
    rehearsed = Rehearsed()
    options = BackupOptions(host="host", dry_run=True)
    rehearsed.repository.clock.sleep(1)
    source = MemorySource(small_tree(), read.append)
    clock = rehearsed.repository.clock

    def tell(event: Event) -> None:
        clock.sleep(1)
        rehearsed.events.append(event)

    run_backup(rehearsed.repository, source, options, events=tell)
    assert read == []
    assert [event for event in rehearsed.events if isinstance(event, Progress)]
