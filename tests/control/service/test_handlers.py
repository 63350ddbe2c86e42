"""Each kind of job, run by a service over a real repository."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from backstay.catalog.models import Evidence, Job
from backstay.catalog.models.jobs import JobKind
from backstay.control.jobs.queues import QUEUE_OF
from backstay.control.manager.manager import BackupManager
from backstay.control.service.handlers import HANDLERS
from backstay.control.service.service import Service
from backstay.errors import Interrupted
from backstay.storage.filesystem_seam import Filesystem
from backstay.testing import FakeClock
from tests.control.service.conftest import Place, ended


def run(service: Service, kind: str, arguments: Mapping[str, object], **more: object) -> Job:
    job = service.jobs.create(kind, dict(arguments), actor="ann", **more)  # type: ignore[arg-type]
    return ended(service.jobs, job)


def result(job: Job) -> dict[str, Any]:
    assert job.status == "succeeded", job.error
    assert job.result is not None
    return job.result


def test_each_kind_of_job_that_there_is_can_be_done() -> None:
    assert set(get_args(JobKind)) == set(HANDLERS) == set(QUEUE_OF)


def test_a_backup_is_made_listed_restored_verified_rehearsed_and_deleted(service: Service, place: Place) -> None:
    asked = {"type": "full", "tags": ["t1"], "description": "before the change"}
    made = run(service, "backup", asked, policy="files")
    assert result(made)["backups"] == [made.backup_id]
    assert made.backup_id is not None
    listed = service.index.get(made.backup_id)
    assert (listed.type, listed.tags, listed.description, listed.job_id) == (
        "full",
        ["t1"],
        "before the change",
        made.id,
    )

    target = place.root / "out"
    restored = run(service, "restore", {"targets": [{"path": str(target)}]}, backup_id=made.backup_id)
    assert result(restored)["files"] == 5
    assert sorted(file.name for file in target.rglob("f*") if file.is_file()) == [f"f{number}" for number in range(5)]

    (target / str(place.root)[1:] / "src/f1").write_text("changed")
    refused = run(service, "restore", {"targets": [{"path": str(target)}]}, backup_id=made.backup_id)
    assert refused.error is not None
    assert (refused.status, refused.error["code"]) == ("failed", "RestoreConflict")
    assert refused.error["conflicts"][0]["path"].endswith("src/f1")

    checked = run(service, "verification", {"level": "integrity"}, backup_id=made.backup_id, policy="files")
    assert result(checked)["ok"] is True
    rehearsed = run(service, "rehearsal", {}, policy="files")
    assert [one["ok"] for one in result(rehearsed)["checks"]]
    row = service.index.get(made.backup_id)
    assert (row.verified_ok, row.rehearsed_ok) == (True, True)
    with service.catalog.reading() as session:
        evidence = session.get(Evidence, result(rehearsed)["evidence"][0])
    assert evidence is not None
    assert (evidence.kind, evidence.ok, evidence.job_id, evidence.report["signature"]["algorithm"]) == (
        "rehearsal", True, rehearsed.id, "ed25519",
    )  # fmt: skip
    assert list((place.root / "data/scratch").iterdir()) == []

    deleted = run(service, "delete", {}, backup_id=made.backup_id)
    assert result(deleted)["deleted"] == [made.backup_id]
    again = run(service, "delete", {}, backup_id=made.backup_id)
    assert again.error is not None
    assert again.error["code"] == "NotFound"


@pytest.mark.parametrize("unreadable", [False, True])
@pytest.mark.parametrize("bad", [1, 2])
def test_snapshots_that_cannot_be_read_end_a_verification_with_a_verdict(
    service: Service, place: Place, monkeypatch: pytest.MonkeyPatch, bad: int, unreadable: bool
) -> None:
    first, newest = (run(service, "backup", {"type": "full"}, policy="files").backup_id for _ in range(2))
    files = {str(place.root / f"repository/snapshots/{ulid}") for ulid in [newest, first][:bad]}
    if unreadable:
        real = Filesystem.open

        def opened(self: Filesystem, path: str, flags: int, mode: int = 0o600) -> int:
            if path in files:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(self, path, flags, mode)

        monkeypatch.setattr(Filesystem, "open", opened)
    else:
        for file in files:
            Path(file).write_bytes(b"changed")
    job = run(service, "verification", {}, policy="files")
    assert job.error is not None
    assert (job.status, job.error["code"]) == ("failed", "CorruptedBackup")
    if bad == 1:
        assert job.result is not None
        assert (job.result["backups"], len(job.result["evidence"])) == ([first], 1)
        assert f"snapshots/{newest}" in job.error["cause"]


def test_where_the_key_of_a_new_repository_lies_is_told_and_the_key_is_not(place: Place) -> None:
    """A job makes it whose log nobody reads: the service says it, and the job's result."""
    environ = {name: value for name, value in place.environ.items() if name != "BACKSTAY_PASSWORD"}
    with Service.open(place.options(), environ=environ, warn=place.warnings.append) as service:
        service.start()
        first, second = run(service, "backup", {}, policy="files"), run(service, "backup", {}, policy="files")
        lines = [line.message for line in service.jobs.lines(first.id)]
        service.stop()
    (key,) = (place.root / "home/.config/backstay").glob("*.key")
    (notice,) = result(first)["notices"]
    assert str(key) in notice
    assert "backstay key recovery" in notice
    assert place.warnings == [notice]
    assert notice in lines
    assert result(second)["notices"] == []
    secret = key.read_text().strip()
    assert len(secret) > 30
    assert secret not in "".join(lines)
    kept = b"".join(path.read_bytes() for path in (place.root / "data").rglob("*") if path.is_file())
    assert str(key).encode() in kept
    assert secret.encode() not in kept


def test_retention_and_collection_are_jobs(service: Service, place: Place) -> None:
    ids = []
    for number in range(3):
        (place.root / "src/new").write_text(str(number))
        ids.append(run(service, "backup", {"retention_days": 1}, policy="files").backup_id)
    would = run(service, "prune", {"dry_run": True})
    assert (result(would)["dropped"], sorted(result(would)["policies"])) == (1, ["files"])
    assert result(run(service, "prune", {}, policy="files"))["dropped"] == 1
    left = [backup.id for backup in service.index.page().items]
    assert left == [ids[2], ids[1]]
    assert result(run(service, "gc", {"dry_run": True}))["packs"] > 0
    assert result(run(service, "gc", {}))["waiting_for"] == []
    refused = run(service, "prune", {}, policy="both")
    assert refused.error is not None
    assert refused.error["code"] == "InvalidRequest"


def test_copies_are_brought_up_to_date_by_a_job(service: Service, place: Place) -> None:
    made = run(service, "backup", {}, policy="files").backup_id
    none = run(service, "copy", {})
    assert none.error is not None
    assert (none.status, none.error["code"]) == ("failed", "InvalidRequest")

    copy, broken = place.root / "copy", place.root / "src/f1/copy"  # below a file
    place.write_copies(copy)
    service.reload()
    first = result(run(service, "copy", {}))
    assert (first["ok"], [one["to"] for one in first["copies"]]) == (True, [str(copy)])
    assert first["objects"] == first["copies"][0]["objects"] > 0
    assert result(run(service, "copy", {}))["objects"] == 0
    with BackupManager(copy, password=place.key, database=service.catalog, environ=place.environ) as other:
        assert [backup.id for backup in other.list()] == [made]

    place.write_copies(broken, copy)
    service.reload()
    shutil.rmtree(copy)
    failed = run(service, "copy", {})
    assert failed.error is not None
    assert failed.result is not None
    assert failed.status == "failed"
    told = {one["to"]: (one["objects"], one["error"] and one["error"]["code"]) for one in failed.result["copies"]}
    assert told == {str(copy): (first["objects"], None), str(broken): (0, failed.error["code"])}


def test_a_copy_that_is_cancelled_is_finished_by_the_next(service: Service, place: Place) -> None:
    run(service, "backup", {}, policy="files")
    place.write_copies(place.root / "copy")
    service.reload()
    seen = 0

    def cancelled() -> None:
        nonlocal seen
        seen += 1
        if seen > 2:
            raise Interrupted("cancelled")

    manager = BackupManager.open(place.file, database=service.catalog, environ=place.environ)
    with manager, pytest.raises(Interrupted):
        manager.copy(events=lambda _: cancelled())
    sent = [path for path in (place.root / "copy").rglob("*") if path.is_file()]
    assert sent
    assert result(run(service, "copy", {}))["objects"] > 0
    with BackupManager(place.root / "copy", password=place.key, environ=place.environ, database=service.catalog) as it:
        assert len(it.list()) == 1


def test_days_do_not_make_a_policy_drop_what_it_keeps_for_ever(service: Service, place: Place) -> None:
    (place.root / "go").write_text("")
    then = FakeClock(service.clock.now() - timedelta(days=3))
    with BackupManager.open(place.file, database=service.catalog, environ=place.environ, clock=then) as before:
        first = before.execute("slow").backups[0].id
    second = run(service, "backup", {"retention_days": 1}, policy="slow").backup_id
    assert {backup.id for backup in service.index.page().items} == {first, second}


def test_a_source_that_fails_keeps_what_was_made_of_the_others(service: Service) -> None:
    job = run(service, "backup", {}, policy="both")
    assert job.status == "failed"
    assert job.result is not None
    assert len(job.result["backups"]) == 1
    assert job.backup_id == job.result["backups"][0]
    assert job.error is not None
    assert job.error["job_id"] == job.id


@pytest.mark.parametrize(
    ("kind", "more", "code"),
    [
        ("backup", {}, "InvalidRequest"),
        ("backup", {"policy": "none"}, "NotFound"),
        ("restore", {}, "InvalidRequest"),
        ("verification", {"policy": "files"}, "NoRepository"),
        ("recovery", {}, "NotFound"),
        ("later", {"queue": "verify", "partition": "x"}, "InvalidRequest"),
    ],
)
def test_what_cannot_be_done_is_told_as_a_problem(
    service: Service, kind: str, more: dict[str, object], code: str
) -> None:
    job = run(service, kind, {}, **more)
    assert job.error is not None
    assert (job.status, job.error["code"]) == ("failed", code)
