"""A backup does not build upon packs that are gone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from backstay.core.clock import SystemClock
from backstay.core.events import Event, Warned
from backstay.errors import InvalidRequest, NotFound
from backstay.operations.backup.run import BackupOptions, BackupResult, run_backup
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.repository import Repository
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters, Selection
from backstay.storage.local import LocalStorage
from backstay.trust.secrets import Secret

SECRET = Secret.new_keyfile()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    place.mkdir()
    for number in range(20):
        (place / f"file-{number}").write_bytes(bytes([number]) * 5000)
    return place


def opened(tmp_path: Path) -> Repository:
    storage = LocalStorage(tmp_path / "repository")
    if (tmp_path / "repository").exists():
        return Repository.open(storage, SECRET, cache=tmp_path / "cache")
    return Repository.create(storage, SECRET, cache=tmp_path / "cache")


def backed_up(repository: Repository, source: Path, told: list[Event] | None = None) -> BackupResult:
    read = FilesystemSource([bytes(source)], filters=Filters([]), clock=SystemClock())
    return run_backup(repository, read, BackupOptions(host="host"), events=(told if told is not None else []).append)


@pytest.mark.parametrize("kind", ["packs", "meta"])
def test_what_lost_packs_held_is_stored_again(tmp_path: Path, source: Path, kind: str) -> None:
    with opened(tmp_path) as repository:
        backed_up(repository, source)
    for pack in (tmp_path / "repository" / kind).rglob("*/*"):
        pack.unlink()
    told: list[Event] = []
    with opened(tmp_path) as repository:
        result = backed_up(repository, source, told)
        assert any(isinstance(event, Warned) and "missing" in event.message for event in told)
        assert result.bytes_read == 20 * 5000
        newest = repository.snapshots.live()[-1]
        restored = run_restore(repository, newest, tmp_path / "out", RestoreOptions(verify=True))
        assert restored.errors == ()
        assert restored.verified == 20


def test_a_damaged_epoch_is_found(tmp_path: Path, source: Path) -> None:
    with opened(tmp_path) as repository:
        backed_up(repository, source)
        repository.keyring.begin_epoch(SystemClock())
    epoch = tmp_path / "repository/keys/epochs/00000002"
    epoch.write_bytes(epoch.read_bytes()[:-3])
    (tmp_path / "repository/keys/epochs/.DS_Store").touch()
    with opened(tmp_path) as repository:
        report = run_verify(repository, None, VerifyOptions())
    assert {finding.subject for finding in report.findings} == {"keys/epochs/00000002", "keys/epochs/.DS_Store"}
    assert not report.ok


def test_an_include_that_matches_nothing_is_told(tmp_path: Path, source: Path) -> None:
    with opened(tmp_path) as repository:
        backed_up(repository, source)
        options = RestoreOptions(chooser=Selection([b"nothing-like-this"]))
        with pytest.raises(NotFound, match="asked for"):
            run_restore(repository, repository.snapshots.live()[-1], tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("days", [2, -40_000])
def test_a_snapshot_is_not_made_in_the_future_or_before_1970(tmp_path: Path, source: Path, days: int) -> None:
    with opened(tmp_path) as repository:
        read = FilesystemSource([bytes(source)], filters=Filters([]), clock=SystemClock())
        moment = SystemClock().now() + timedelta(days=days)
        with pytest.raises(InvalidRequest, match="cannot have been made"):
            run_backup(repository, read, BackupOptions(host="host", time=moment))
