"""Restores by BackupManager: plans, conflicts, times, and what is refused before anything is written."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from backstay.control.manager.manager import BackupManager
from backstay.control.manager.results import CheckFailed
from backstay.control.manager.targets import DirectoryTarget
from backstay.errors import (
    CorruptedBackup,
    InvalidRequest,
    NotFound,
    RestoreConflict,
    RestoreFailed,
)
from backstay.testing import FakeClock
from tests.control.manager.conftest import jobs

# -- restores


def test_a_restore_is_planned_done_and_looked_at_again(backups: BackupManager, documents: Path, tmp_path: Path) -> None:
    made = backups.create_backup(documents, name="x")
    out = tmp_path / "out"
    plan = backups.plan_restore("x", out)
    assert (plan.conflict_count, plan.files, plan.fits, plan.refused) == (0, 6, True, False)
    assert plan.based_on == "assumption"
    assert not out.exists()
    run = backups.restore("x", out, verify=True, validate_before=True)
    assert (run.files, run.parts[0].verified) == (6, 6)
    restored = out / str(documents).lstrip("/")
    assert (restored / "letters/letter-3.txt").read_text() == (documents / "letters/letter-3.txt").read_text()
    assert [(one.id, one.status, one.backups, one.targets) for one in backups.list_restores()] == [
        (run.id, "succeeded", (made.id,), (str(out),))
    ]
    assert len(backups.list_restores(limit=10**30)) == 1
    assert backups.verify_restore(run.id).equal == 6
    (restored / "notes.tmp").write_text("changed")
    with pytest.raises(RestoreFailed, match=r"notes\.tmp"):
        backups.verify_restore(run.id)
    with pytest.raises(NotFound):
        backups.verify_restore(made.id)


def test_a_restore_that_deletes_spares_key_files(
    backups: BackupManager, documents: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    config, out = documents / "config", tmp_path / "out"
    (config / "backstay").mkdir(parents=True)
    backups.create_backup(documents, name="x")
    target = DirectoryTarget(source=documents, destination=out)
    backups.restore("x", target)
    environ["XDG_CONFIG_HOME"] = str(out / "config")
    (out / "config/backstay/default.key").touch()
    (out / "config/stranger").touch()
    assert backups.plan_restore("x", target, delete=True).parts[0].deletion_count == 1
    backups.restore("x", target, delete=True)
    assert [path.name for path in sorted((out / "config").rglob("*"))] == ["backstay", "default.key"]


def test_a_source_with_two_leading_slashes_is_the_same_path(
    backups: BackupManager, documents: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    backups.create_backup(documents, name="x")
    backups.restore("x", DirectoryTarget(source=documents, destination=out))
    (out / "stranger").touch()
    backups.restore("x", DirectoryTarget(source=f"/{documents}", destination=out), delete=True)
    assert not (out / "stranger").exists()


def test_conflicts_are_found_before_anything_is_written(
    backups: BackupManager, documents: Path, tmp_path: Path
) -> None:
    backups.create_backup(documents, name="x")
    out = tmp_path / "out"
    target = DirectoryTarget(source=documents, destination=out)
    backups.restore("x", target)
    (out / "notes.tmp").write_text("mine")
    (out / "letters/letter-1.txt").unlink()
    plan = backups.plan_restore("x", target)
    assert plan.refused
    assert plan.conflicts == (str(documents / "notes.tmp"),)
    for dry_run in (True, False):
        with pytest.raises(RestoreConflict):
            backups.restore("x", target, dry_run=dry_run)
    assert not (out / "letters/letter-1.txt").exists()
    run = backups.restore("x", target, conflict="skip")
    assert (out / "letters/letter-1.txt").exists()
    assert (out / "notes.tmp").read_text() == "mine"
    assert run.parts[0].skipped == 1
    assert sorted(one.status for one in backups.list_restores()) == ["failed", "succeeded", "succeeded"]


def test_a_conflict_at_the_second_target_keeps_the_first_from_being_written(
    backups: BackupManager, documents: Path, tmp_path: Path
) -> None:
    backups.create_backup(documents, name="x")
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    (second / "notes.tmp").write_text("mine")
    targets = [DirectoryTarget(source=documents, destination=place) for place in (first, second)]
    with pytest.raises(RestoreConflict) as told:
        backups.restore("x", targets)
    assert told.value.paths == (str(documents / "notes.tmp"),)
    assert not first.exists()
    assert [path.name for path in second.iterdir()] == ["notes.tmp"]


def test_the_newest_at_or_before_a_time_is_restored(
    backups: BackupManager, documents: Path, tmp_path: Path, clock: FakeClock
) -> None:
    note = documents / "notes.tmp"
    for day in range(3):
        note.write_text(f"day {day}")
        os.utime(note, ns=(clock.now_ns(), clock.now_ns()))
        backups.create_backup(documents, name="x")
        clock.advance(86_400)
    for hours, text in ((0, "day 2"), (25, "day 1"), (48, "day 1"), (49, "day 0")):
        out = tmp_path / f"out-{hours}"
        at = clock.now() - timedelta(hours=hours)
        backups.restore("x", out, source=documents / "notes.tmp", at=at)
        assert (out / "notes.tmp").read_text() == text


def test_a_dry_run_leaves_no_trace(backups: BackupManager, documents: Path, tmp_path: Path) -> None:
    backups.create_backup(documents)
    run = backups.restore("latest", tmp_path / "out", include=["*.txt"], dry_run=True)
    assert run.files == 5
    assert not (tmp_path / "out").exists()
    assert backups.list_restores() == []


def test_targets_that_make_no_sense(backups: BackupManager, documents: Path, tmp_path: Path) -> None:
    backups.create_backup(documents)
    for target in ("", ".", "s3://bucket/x", None):
        with pytest.raises(InvalidRequest):
            backups.restore("latest", target)
    with pytest.raises(InvalidRequest, match="has no target"):
        backups.restore("latest", tmp_path / "out", mode="in_place")
    with pytest.raises(NotFound, match="no dump of postgresql"):
        backups.restore("latest", "postgresql://localhost/x")
    assert [job.kind for job in jobs(backups)] == ["backup"], "nothing of it was begun"


def test_a_damaged_backup_is_refused_before_anything_is_written(
    backups: BackupManager, documents: Path, tmp_path: Path
) -> None:
    (documents / "large.bin").write_bytes(os.urandom(300_000))
    backups.create_backup(documents)
    largest = max(
        (tmp_path / "repository/packs").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0
    )
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.chmod(0o644)
    largest.write_bytes(data)
    with pytest.raises(CorruptedBackup, match="nothing was restored"):
        backups.restore("latest", tmp_path / "out", validate_before=True)
    assert not (tmp_path / "out").exists()
    failed = [one for one in backups.verify("latest", read_data=1.0) if isinstance(one, CheckFailed)]
    assert [one.check for one in failed] == ["integrity", "completeness"]
    assert all(one.findings for one in failed)


@pytest.mark.parametrize("text", ["latest", "latest:x", "x"])
def test_no_older_backup_is_restored_in_place_of_one_that_cannot_be_read(
    backups: BackupManager, documents: Path, tmp_path: Path, clock: FakeClock, text: str
) -> None:
    older = backups.create_backup(documents, name="x")
    clock.advance(3600)
    newest = backups.create_backup(documents, name="x")
    (bad,) = tmp_path.rglob(f"snapshots/{newest.id}")
    bad.write_bytes(b"damaged")
    with pytest.raises(CorruptedBackup) as caught:
        backups.restore(text, tmp_path / "out")
    assert f"snapshots/{newest.id}" in caught.value.cause
    assert older.id in caught.value.hint
    assert not (tmp_path / "out").exists()
    backups.restore(older.id, tmp_path / "out")
