"""A backup warns when the disk that holds the repository is nearly full."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from backstay.core.events import Event, Warned
from backstay.errors import Interrupted
from backstay.operations.backup.request import BackupOptions
from backstay.operations.backup.run import run_backup
from backstay.operations.backup.scarce_room import is_scarce, warn_of_scarce_room
from backstay.repository.repository import Repository
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.storage.assembly import StorageSettings, assemble
from backstay.storage.backend import Room, StorageBackend
from backstay.storage.filesystem_seam import Filesystem
from backstay.storage.local import LocalStorage
from backstay.storage.memory import MemoryStorage
from backstay.trust.secrets import Secret

GIB = 1 << 30


class Disk(Filesystem):
    """Of the size and with the rest that a test wants, in blocks of 4 KiB; as much again is kept for root."""

    def __init__(self, total: int, free: int) -> None:
        self.total, self.free = total // 4096, free // 4096

    def statvfs(self, path: str) -> os.statvfs_result:
        real = os.statvfs(path)
        kept = self.free  # f_bfree counts it, f_bavail does not
        blocks = self.total + kept if self.total else 0
        return os.statvfs_result((4096, 4096, blocks, self.free + kept, self.free, *real[5:]))


def warnings(backend: StorageBackend) -> list[str]:
    told: list[Event] = []
    warn_of_scarce_room(backend, told.append)
    return [event.message for event in told if isinstance(event, Warned)]


@pytest.mark.parametrize(
    ("total", "free", "scarce"),
    [
        (100 * GIB, 10 * GIB + 1, False),
        (100 * GIB, 10 * GIB, True),
        (4 * GIB, GIB, False),
        (4 * GIB, GIB - 1, True),
        (100 * GIB, 0, True),
        (0, 0, True),
    ],
)
def test_when_room_is_scarce(total: int, free: int, scarce: bool) -> None:
    assert is_scarce(Room(total=total, free=free)) is scarce


def test_the_warning_has_the_figures(tmp_path: Path) -> None:
    [told] = warnings(LocalStorage(tmp_path, filesystem=Disk(40 * GIB, 3 * GIB)))
    assert told == (
        f"the file system of {tmp_path} is 92 % full, 3.0 GiB of 40.0 GiB are free: "
        "`backstay prune` and `backstay gc` make room"
    )
    assert warnings(LocalStorage(tmp_path, filesystem=Disk(400 * GIB, 50 * GIB))) == []


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    [told] = warnings(LocalStorage(tmp_path, filesystem=Disk(GIB, 0)))
    assert "is 100 % full, 0 B of 1.0 GiB are free" in told


def test_what_is_not_known_is_not_warned_of(tmp_path: Path) -> None:
    class Silent(Filesystem):
        def statvfs(self, path: str) -> os.statvfs_result:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    for backend in (
        MemoryStorage(),
        LocalStorage(tmp_path, filesystem=Silent()),
        LocalStorage(tmp_path, filesystem=Disk(0, 0)),  # as file systems without blocks say it
    ):
        assert backend.room() is None
        assert warnings(backend) == []


def test_the_real_file_system_says_what_df_says(tmp_path: Path) -> None:
    room = LocalStorage(tmp_path).room()
    assert room is not None
    assert 0 < room.free <= room.total <= os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize


def test_each_copy_is_looked_at_behind_its_wrappers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Filesystem, "statvfs", Disk(40 * GIB, GIB).statvfs)
    for name in "ab":
        (tmp_path / name).mkdir()
    settings = StorageSettings(mirrors=(str(tmp_path / "b"),), max_size=GIB)
    with assemble(str(tmp_path / "a"), settings) as backend:
        assert [told.split()[4] for told in warnings(backend)] == [str(tmp_path / "a"), str(tmp_path / "b")]


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_backup_tells_it_at_its_end_unless_it_stores_nothing(tmp_path: Path, dry_run: bool) -> None:
    (tmp_path / "documents").mkdir()
    store = LocalStorage(tmp_path / "store", filesystem=Disk(40 * GIB, GIB // 2))
    told: list[Event] = []
    with Repository.create(store, Secret.new_keyfile()) as repository:
        documents = [os.fsencode(tmp_path / "documents")]
        source = FilesystemSource(documents, filters=Filters([]), clock=repository.clock)
        run_backup(repository, source, BackupOptions(host="here", dry_run=dry_run), events=told.append)
    found = [event.message for event in told if isinstance(event, Warned)]
    assert [message.partition(":")[0] for message in found] == (
        [] if dry_run else [f"the file system of {tmp_path / 'store'} is 98 % full, 512 MiB of 40.0 GiB are free"]
    )


def test_who_asks_to_stop_when_it_is_told_gets_the_snapshot(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Warned):
            raise Interrupted("interrupted")

    (tmp_path / "documents").mkdir()
    store = LocalStorage(tmp_path / "store", filesystem=Disk(40 * GIB, GIB // 2))
    with Repository.create(store, Secret.new_keyfile()) as repository:
        documents = [os.fsencode(tmp_path / "documents")]
        source = FilesystemSource(documents, filters=Filters([]), clock=repository.clock)
        made = run_backup(repository, source, BackupOptions(host="here"), events=stop)
        assert [one.id for one in repository.snapshots.live()] == [made.snapshot]
