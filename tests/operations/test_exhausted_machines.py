"""A machine that runs out of something ends a backup: no snapshot lacks what could not be read for that."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backstay.errors import BackupFailed
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.repository.repository import Environment, Repository
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.storage.memory import MemoryStorage
from tests.crash.small_world import SECRET
from tests.sources.filesystem.reading import LateClock, tree


def refusing(call: Callable[..., Any], code: int, name: bytes) -> Callable[..., Any]:
    """The call, which the system refuses for one item."""

    def refused(item: Any, *args: Any, **more: Any) -> Any:
        if _name_of(item) == name:
            raise OSError(code, os.strerror(code))
        return call(item, *args, **more)

    return refused


def _name_of(item: int | bytes) -> bytes:
    place = Path(f"/proc/self/fd/{item}").readlink() if isinstance(item, int) else Path(os.fsdecode(item))
    return bytes(place).rpartition(b"/")[2]


def back_up(repository: Repository, *paths: Path, dry_run: bool) -> None:
    source = FilesystemSource([bytes(path) for path in paths], filters=Filters([]), clock=LateClock())
    run_backup(repository, source, BackupOptions(host="host", dry_run=dry_run))


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize(
    ("call", "name", "dry_run"),
    [
        *(("open", b"directory", True), ("open", b"directory", False), ("scandir", b"directory", False)),
        *(("open", b"file", False), ("listxattr", b"file", False), ("lstat", b"file", False)),
    ],
)
def test_a_backup_ends_without_a_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, name: bytes, code: int, dry_run: bool
) -> None:
    tree(tmp_path, "directory/inner", "file", "other")
    with Repository.create(MemoryStorage(), SECRET, environment=Environment(threads=1)) as repository:
        monkeypatch.setattr(os, call, refusing(getattr(os, call), code, name))
        with pytest.raises(BackupFailed, match=f"/{name.decode()}: .{os.strerror(code)[1:]}") as ended:
            back_up(repository, tmp_path / "file", tmp_path, dry_run=dry_run)
        assert "again" in ended.value.hint
        assert list(repository.snapshots.live()) == []
