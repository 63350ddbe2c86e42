"""A backup that failed holds nothing: who tries again and again, as a service does, needs no more memory each time."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from backstay.core.clock import SystemClock
from backstay.errors import StorageUnavailable
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.repository import Environment, Repository
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.storage.backend import Buffer
from backstay.storage.memory import MemoryStorage
from backstay.trust.secrets import Secret

SECRET = Secret.new_keyfile()


class Failing(MemoryStorage):
    """Takes a few packs."""

    left = 1_000

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        if name.startswith("packs/"):
            self.left -= 1
            if self.left < 0:
                raise StorageUnavailable("the store is away", cause="a test")
        super().store(name, data, overwrite=overwrite)


@pytest.fixture
def unsearched() -> Iterator[None]:
    """Only what nobody refers to is let go."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("unsearched")
@pytest.mark.parametrize("taken", [0, 1, 3])
def test_its_buffers_are_let_go_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    for number in range(16):
        (tmp_path / f"f{number}").write_bytes(random.Random(number).randbytes(1 << 20))
    writers: list[weakref.ref[BlobWriter]] = []
    init = BlobWriter.__init__

    def noted(self: BlobWriter, *arguments: object, **more: object) -> None:
        init(self, *arguments, **more)  # type: ignore[arg-type]
        writers.append(weakref.ref(self))

    monkeypatch.setattr(BlobWriter, "__init__", noted)
    store = Failing()
    with Repository.create(store, SECRET, environment=Environment(pack_target=1 << 20)) as repository:
        store.left = taken
        source = FilesystemSource([bytes(tmp_path)], filters=Filters([]), clock=SystemClock())
        with pytest.raises(StorageUnavailable) as told:
            run_backup(repository, source, BackupOptions(host="host"))
    del told, source
    assert [writer() for writer in writers] == [None]
