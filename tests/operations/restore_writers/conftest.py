"""A tree in a repository, and processes that write from the first file on."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from backstay.core.clock import SystemClock
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.restore import writers as restore_writers
from backstay.operations.restore.write_process import WriteProcess
from backstay.repository.repository import Repository
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.storage.local import LocalStorage
from tests.operations.restore_writers.world import DIRECTORIES, FILES_EACH, SECRET


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    rng = random.Random(11)  # repeatable
    place = tmp_path / "tree"
    for directory in range(DIRECTORIES):
        inside = place / f"d{directory}"
        inside.mkdir(parents=True)
        for number in range(FILES_EACH):
            file = inside / f"f{number}"
            file.write_bytes(rng.randbytes(rng.choice((0, 1, 500, 9000)) if number > 4 else 700))
            file.chmod(rng.choice((0o600, 0o644, 0o755, 0o4755, 0o444)))
            if os.geteuid() == 0 and number % 7 == 0:
                os.chown(file, 1234, 4321)
            os.utime(file, ns=(rng.randrange(1 << 60), rng.randrange(1 << 60)))
    (place / "d0/same").hardlink_to(place / "d0/f5")
    with (place / "d1/sparse").open("wb") as sparse:
        sparse.seek(1 << 20)
        sparse.write(b"island")
    os.setxattr(place / "d2/f1", "user.note", b"kept")
    (place / "d3/one-chunk").write_bytes(rng.randbytes(700_000))
    (place / "d4/some-chunks").write_bytes(rng.randbytes(5 << 20))
    (place / "d5/many-chunks").write_bytes(rng.randbytes(9 << 20))
    with (place / "d6/islands").open("wb") as sparse:
        for island in range(3):
            sparse.seek(island * (3 << 20))
            sparse.write(rng.randbytes(3 << 19))
    return place


@pytest.fixture
def repository(tmp_path: Path, tree: Path) -> Iterator[Repository]:
    with Repository.create(LocalStorage(tmp_path / "repository"), SECRET, cache=tmp_path / "cache") as repository:
        source = FilesystemSource([bytes(tree)], filters=Filters([]), clock=SystemClock())
        run_backup(repository, source, BackupOptions(host="host"))
        yield repository


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[WriteProcess]]:
    """Processes that write from the first file on; all of them must be gone in the end."""
    processes: list[WriteProcess] = []
    start, is_ready = WriteProcess.__init__, WriteProcess.is_ready

    def noted(self: WriteProcess, *arguments: object) -> None:
        start(self, *arguments)  # type: ignore[arg-type]
        processes.append(self)

    def waited_for(self: WriteProcess) -> bool:
        while not is_ready(self):
            pass
        return True

    monkeypatch.setattr(restore_writers, "MANY", 0)
    monkeypatch.setattr(restore_writers, "PROCESSES", 2)
    monkeypatch.setattr(WriteProcess, "__init__", noted)
    monkeypatch.setattr(WriteProcess, "is_ready", waited_for)
    yield processes
    assert all(process.is_gone() for process in processes)
