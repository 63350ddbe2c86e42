"""What a program asks of a backup and no snapshot could keep is refused before anything is read."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from backstay.core.clock import SystemClock
from backstay.errors import InvalidRequest
from backstay.operations.backup.request import check_options
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.repository.repository import Repository
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.storage.memory import MemoryStorage
from backstay.trust.secrets import Secret


@pytest.mark.parametrize(
    "asked",
    [
        {"host": ""},
        {"host": " "},
        {"tags": ("",)},
        {"tags": ("good", "\udcff")},
        {"description": "\udcff"},
        {"name": ""},
        {"time": datetime(2026, 1, 1)},  # noqa: DTZ001 - that it has no zone is what is wrong with it
    ],
)
def test_words_and_times_that_no_snapshot_keeps(tmp_path: Path, asked: dict[str, Any]) -> None:
    with Repository.create(MemoryStorage(), Secret.new_keyfile()) as repository:
        before = [info.name for info in repository.backend.list()]
        source = FilesystemSource([bytes(tmp_path)], filters=Filters([]), clock=SystemClock())
        with pytest.raises(InvalidRequest):
            run_backup(repository, source, BackupOptions(**{"host": "here", **asked}))
        assert [info.name for info in repository.backend.list()] == before


@pytest.mark.parametrize("readers", [-3, 0, 65])
def test_numbers_of_readers(readers: int) -> None:
    with pytest.raises(InvalidRequest, match="read_concurrency"):
        BackupOptions(host="here", read_concurrency=readers)


def test_an_empty_description_and_no_tags_are_fine() -> None:
    check_options(BackupOptions(host="here"), SystemClock())
