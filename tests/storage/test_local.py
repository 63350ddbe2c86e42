"""The store in a directory: its contract, its failures, and what a crash leaves."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from backstay.errors import (
    BackstayError,
    InsufficientSpace,
    InvalidRequest,
    ObjectExists,
    StorageMissing,
    StorageRefused,
    StorageUnavailable,
)
from backstay.storage.backend import StorageBackend
from backstay.storage.filesystem_seam import Filesystem
from backstay.storage.local import LocalStorage
from backstay.testing import FaultyFilesystem, StorageConformance
from tests.storage.local_stores import DATA, MORE, NAME, NoLinks


class NeitherNor(NoLinks):
    """Without any way to create a name only if it is absent."""

    def rename_noreplace(self, source: str, target: str) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), source, None, target)


class TestLocalStorage(StorageConformance):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> StorageBackend:
        return LocalStorage(tmp_path / "made" / "repository")


class TestWithoutHardLinks(StorageConformance):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> StorageBackend:
        return LocalStorage(tmp_path, filesystem=NoLinks())


class TestShortWrites(StorageConformance):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> StorageBackend:
        return LocalStorage(tmp_path, filesystem=FaultyFilesystem(write_limit=60_000))


def _files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


# --- what lies on the disk ---


def test_modes_and_names(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    LocalStorage(root).store(NAME, DATA)
    assert _files(root) == [NAME]
    assert stat.S_IMODE((root / NAME).stat().st_mode) == 0o600
    for directory in (root, root / "packs", root / "packs/ab"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_what_is_no_object_is_not_listed(tmp_path: Path) -> None:
    store = LocalStorage(tmp_path)
    store.store(NAME, DATA)
    (tmp_path / "lost+found").mkdir(mode=0o700)
    (tmp_path / "lost+found" / "a").write_bytes(b"")
    (tmp_path / "packs" / "ab" / ".tmp-1-00").write_bytes(b"half")
    (tmp_path / "packs" / "with space").write_bytes(b"")
    os.mkfifo(tmp_path / "packs" / "fifo")
    assert [info.name for info in store.list()] == [NAME]


def test_a_directory_may_be_a_link_an_object_may_not(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    store = LocalStorage(root)
    store.store("a", DATA)
    (tmp_path / "elsewhere").mkdir()
    (root / "packs").symlink_to(tmp_path / "elsewhere")
    store.store(NAME, DATA)
    assert [info.name for info in store.list("packs/")] == [NAME]
    (root / "linked").symlink_to(root / "a")
    for call in (lambda: store.retrieve("linked"), lambda: store.stat("linked"), lambda: [*store.list()]):
        with pytest.raises(StorageUnavailable, match="linked") as caught:
            call()
        assert "never links" in caught.value.hint


def test_a_link_to_a_disk_that_is_away_is_not_an_empty_directory(tmp_path: Path) -> None:
    store = LocalStorage(tmp_path)
    (tmp_path / "packs").symlink_to(tmp_path / "unmounted")
    with pytest.raises(StorageUnavailable):
        [*store.list("packs")]


def test_an_object_stands_where_a_directory_is_needed(tmp_path: Path) -> None:
    store = LocalStorage(tmp_path)
    store.store("a", DATA)
    with pytest.raises(InvalidRequest):
        store.store("a/b", DATA)
    with pytest.raises(InvalidRequest):
        LocalStorage(tmp_path / "r").store("x" * 255 + "/" + "y" * 255 + "/" + "z" * 256, DATA)


def test_a_removed_directory_is_made_again_at_the_next_try(tmp_path: Path) -> None:
    store = LocalStorage(tmp_path)
    store.store("packs/ab/1", DATA)
    (tmp_path / "packs/ab/1").unlink()
    (tmp_path / "packs/ab").rmdir()
    with pytest.raises(StorageUnavailable):
        store.store("packs/ab/1", DATA)
    store.store("packs/ab/1", DATA)


def test_a_repeated_link_request_of_nfs_finds_its_own_link(tmp_path: Path) -> None:
    class LostReply(Filesystem):
        def link(self, source: str, target: str) -> None:
            super().link(source, target)
            super().link(source, target)

    store = LocalStorage(tmp_path, filesystem=LostReply())
    store.store(NAME, DATA)
    assert _files(tmp_path) == [NAME]
    with pytest.raises(ObjectExists):
        store.store(NAME, DATA)


def test_without_any_atomic_create_nothing_is_stored(tmp_path: Path) -> None:
    store = LocalStorage(tmp_path, filesystem=NeitherNor())
    with pytest.raises(StorageUnavailable, match="neither hard links") as caught:
        store.store(NAME, DATA)
    assert "file system" in caught.value.hint
    assert _files(tmp_path) == []


# --- absent is not unknown ---


def _calls(store: LocalStorage) -> dict[str, Callable[[], object]]:
    return {
        "retrieve": lambda: store.retrieve("gone"),
        "stat": lambda: store.stat("gone"),
        "exists": lambda: store.exists("gone"),
        "list": lambda: [*store.list()],
        "list below": lambda: [*store.list("packs/ab/")],
        "delete": lambda: store.delete("gone"),
        "store": lambda: store.store("new/name", DATA),
        "overwrite": lambda: store.store("new", DATA, overwrite=True),
        "sweep": lambda: store.sweep_temporaries(0),
    }


@pytest.mark.parametrize("call", _calls(LocalStorage("/")).keys())
def test_an_unmounted_root_is_unavailable(call: str, tmp_path: Path) -> None:
    root = tmp_path / "disk"
    store = LocalStorage(root)
    store.store(NAME, DATA)
    root.rename(tmp_path / "away")
    with pytest.raises(StorageUnavailable) as caught:
        _calls(store)[call]()
    assert "mounted" in caught.value.hint
    assert not root.exists(), "nothing may be written where the disk is missing"


@pytest.mark.parametrize("call", _calls(LocalStorage("/")).keys())
def test_another_device_under_the_same_path_is_unavailable(call: str, tmp_path: Path) -> None:
    class Unmounted(Filesystem):
        away = False

        def stat(self, path: str) -> os.stat_result:
            status = super().stat(path)
            return os.stat_result([*status[:2], status.st_dev + self.away, *status[3:]])

    filesystem = Unmounted()
    store = LocalStorage(tmp_path, filesystem=filesystem)
    store.store("a", DATA)
    before = sorted(tmp_path.rglob("*"))
    filesystem.away = True
    with pytest.raises(StorageUnavailable, match="not the directory it was"):
        _calls(store)[call]()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = LocalStorage(tmp_path / "file")
    for call in _calls(store).values():
        with pytest.raises(StorageUnavailable):
            call()


# --- failures of the system ---

ERRNOS: list[tuple[int, type[BackstayError]]] = [
    (errno.ENOSPC, InsufficientSpace),
    (errno.EDQUOT, InsufficientSpace),
    (errno.EACCES, StorageRefused),
    (errno.EPERM, StorageRefused),
    *[
        (number, StorageUnavailable)
        for number in (errno.EROFS, errno.EIO, errno.ENOTCONN, errno.ESTALE, errno.EMFILE, errno.EFBIG)
    ],
]


@pytest.mark.parametrize(("number", "expected"), ERRNOS, ids=lambda value: errno.errorcode.get(value, ""))
@pytest.mark.parametrize("overwrite", [False, True])
def test_every_call_of_a_store_may_fail(
    number: int, expected: type[BackstayError], overwrite: bool, tmp_path: Path
) -> None:
    for at in range(1, 100):
        root = tmp_path / str(at)
        filesystem = FaultyFilesystem(at=at, fault=number, write_limit=5000)
        store = LocalStorage(root, filesystem=filesystem)
        failure: BackstayError | None = None
        try:
            store.store(NAME, DATA, overwrite=overwrite)
        except expected as error:
            failure = error
        if failure is None:
            assert LocalStorage(root).retrieve(NAME) == DATA
            if not filesystem.hits:
                break
        else:
            assert failure.cause == os.strerror(number)
            assert failure.hint
            assert _files(root) in ([], [NAME])  # no temporary file
        again = LocalStorage(root)
        assert not root.exists() or [info.size for info in again.list()] in ([], [len(DATA)])
        again.store(NAME, MORE, overwrite=True)
        assert again.retrieve(NAME) == MORE
    else:
        pytest.fail("no run without a failure")
    assert at > 8


@pytest.mark.parametrize(("number", "expected"), ERRNOS[2:], ids=lambda value: errno.errorcode.get(value, ""))
@pytest.mark.parametrize("operation", ["open", "pread", "scandir", "lstat", "unlink", "fsync"])
def test_reading_and_deleting_may_fail(
    operation: str, number: int, expected: type[BackstayError], tmp_path: Path
) -> None:
    LocalStorage(tmp_path).store(NAME, DATA)
    calls: dict[str, Callable[[LocalStorage], object]] = {
        "open": lambda store: store.retrieve(NAME),
        "pread": lambda store: store.retrieve(NAME),
        "scandir": lambda store: [*store.list()],
        "lstat": lambda store: store.stat(NAME),
        "unlink": lambda store: store.delete(NAME),
        "fsync": lambda store: store.delete(NAME),
    }
    filesystem = FaultyFilesystem(at=1, fault=number, operations=frozenset({operation}))
    with pytest.raises(expected) as caught:
        calls[operation](LocalStorage(tmp_path, filesystem=filesystem))
    assert caught.value.cause == os.strerror(number)
    assert filesystem.hits == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_directory_that_cannot_be_looked_at_is_not_missing(number: int, tmp_path: Path) -> None:
    LocalStorage(tmp_path).store(NAME, DATA)
    filesystem = FaultyFilesystem(at=1, fault=number, operations=frozenset({"stat"}), repeat=True)
    with pytest.raises(StorageUnavailable) as caught:
        LocalStorage(tmp_path, filesystem=filesystem).exists("repo.json")
    assert not isinstance(caught.value, StorageMissing)
    assert (caught.value.cause, caught.value.exit_status) == (os.strerror(number), 15)
    assert caught.value.hint
    for place in (tmp_path / "none", tmp_path / NAME / "below"):
        with pytest.raises(StorageMissing):
            LocalStorage(place).exists("repo.json")


def test_a_listing_that_fails_midway_is_no_listing(tmp_path: Path) -> None:
    for number in range(4):
        LocalStorage(tmp_path).store(f"packs/{number}/x", DATA)
    for operation in ("scandir", "lstat"):
        for at in range(1, 5):
            filesystem = FaultyFilesystem(at=at, operations=frozenset({operation}))
            with pytest.raises(StorageUnavailable):
                [*LocalStorage(tmp_path, filesystem=filesystem).list("packs/")]


def test_an_object_that_vanishes_while_listed_is_left_out(tmp_path: Path) -> None:
    store = LocalStorage(tmp_path)
    for number in range(4):
        store.store(f"packs/{number}", DATA)
    listing = store.list("packs/")
    seen = [next(listing).name]
    for number in range(4):
        store.delete(f"packs/{number}")
    assert seen + [info.name for info in listing] == seen


def test_a_failed_sync_is_not_repeated(tmp_path: Path) -> None:
    store = LocalStorage(tmp_path)
    store.store("packs/ab/other", DATA)
    filesystem = FaultyFilesystem(at=1, operations=frozenset({"fsync"}))
    failing = LocalStorage(tmp_path, filesystem=filesystem)
    with pytest.raises(StorageUnavailable):
        failing.store("flat", DATA)
    synced = [path for operation, path in filesystem.calls if operation == "fsync"]
    assert len(synced) == 1
    assert not store.exists("flat")


def test_a_file_system_without_directory_sync(tmp_path: Path) -> None:
    class Smb(Filesystem):
        def fsync(self, descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            super().fsync(descriptor)

    store = LocalStorage(tmp_path, filesystem=Smb())
    store.store(NAME, DATA)
    store.delete(NAME)


def test_a_full_disk(tmp_path: Path) -> None:
    filesystem = FaultyFilesystem(capacity=25_000, write_limit=4096)
    store = LocalStorage(tmp_path, filesystem=filesystem)
    store.store("a", DATA)
    store.store("b", DATA)
    with pytest.raises(InsufficientSpace, match="c"):
        store.store("c", DATA)
    with pytest.raises(InsufficientSpace):
        store.store("a", DATA, overwrite=True)
    assert _files(tmp_path) == ["a", "b"]
    assert store.retrieve("a") == DATA


def test_a_file_that_shrinks_under_the_reader(tmp_path: Path) -> None:
    class Shrinking(Filesystem):
        def pread(self, descriptor: int, length: int, offset: int) -> bytes:
            return super().pread(descriptor, length, offset)[: 100 if offset == 0 else 0]

    LocalStorage(tmp_path).store("a", DATA)
    with pytest.raises(StorageUnavailable, match="too short"):
        LocalStorage(tmp_path, filesystem=Shrinking()).retrieve("a")
