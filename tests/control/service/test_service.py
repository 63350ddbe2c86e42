"""The service as a whole: what it opens, what it keeps going, and how it ends."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text, update

from backstay.catalog.checkpoints import CheckpointFile, stored_checkpoints
from backstay.catalog.models import AuditEntry, Job, ScheduleRecord
from backstay.control.jobs.jobs import JobFilters
from backstay.control.service import place as places
from backstay.control.service.background import Background, Task
from backstay.control.service.policies import Policies
from backstay.control.service.service import Service
from backstay.core.clock import SystemClock
from backstay.errors import CatalogUnavailable, InvalidRequest, JobConflict, NotFound, PolicyInvalid
from tests.control.jobs.recording import eventually
from tests.control.service.conftest import Place, ended


def test_a_directory_belongs_to_one_process_for_as_long_as_that_lives(place: Place) -> None:
    with place.open(), pytest.raises(JobConflict, match="another server") as caught, place.open():
        pytest.fail("two at once")
    assert str(os.getpid()) in caught.value.cause
    with place.open():
        assert (place.root / "data").stat().st_mode & 0o777 == 0o700


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequest, match="cannot be used"):
        places.prepare(tmp_path / "file" / "data")


def test_a_directory_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()  # as a read-only file system, opening it for writing fails, for root too
    with pytest.raises(InvalidRequest, match="cannot be used") as caught, places.held(tmp_path):
        pytest.fail("it is held")
    assert "--data-dir" in caught.value.hint


def test_a_directory_that_everybody_writes_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(InvalidRequest, match="is not safe"):
        places.prepare(tmp_path)
    tmp_path.chmod(0o755)
    assert places.prepare(tmp_path) == tmp_path.resolve()


def test_the_schedules_of_the_policy_file_are_known_from_the_start(service: Service) -> None:
    (run,) = service.next_runs(3)
    assert (run.policy, run.type, run.at.hour, run.at.minute) == ("files", "full", 3, 0)


def test_a_changed_policy_file_is_taken_over_and_one_with_mistakes_is_not(place: Place) -> None:
    with place.open() as service:
        service.start()
        before = place.file.read_text()
        place.file.write_text(before.replace("0 3 * * *", "0 4 * * *"))
        assert service.reload()
        with service.catalog.reading() as session:
            assert session.scalars(select(ScheduleRecord.cron).where(ScheduleRecord.enabled)).all() == ["0 4 * * *"]
        place.file.write_text(before.replace("schedule:", "shedule:"))
        with pytest.raises(PolicyInvalid):
            service.reload()
        assert service.reload() is False  # told once
        assert [str(trouble) for trouble in service.troubles()] == [str(service.policies.trouble)]
        assert service.next_runs(1)[0].at.hour == 4
        place.file.write_text(before)
        assert service.reload()
        assert service.troubles() == []
        service.stop()


def test_without_a_policy_file_there_are_no_policies(tmp_path: Path) -> None:
    policies = Policies(None, {})
    assert (policies.loaded, policies.reload()) == (None, False)
    with pytest.raises(NotFound):
        policies.required()


def test_a_service_that_runs_no_jobs_says_so(place: Place) -> None:
    with place.open(queues=()) as service:
        service.start()
        assert [str(trouble) for trouble in service.troubles()] == [
            "no worker runs jobs: none has told for a while that it lives"
        ]
        service.stop()


def test_a_service_whose_disk_is_full_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with place.open() as service:
        service.start()
        assert service.troubles() == []
        monkeypatch.setattr("backstay.control.service.place.LEAST_FREE", 1 << 62)
        (trouble,) = service.troubles()
        assert isinstance(trouble, CatalogUnavailable)
        assert (trouble.title, trouble.hint) == ("the catalog cannot be written", "make room there")
        service.stop()


def test_the_end_leaves_a_running_job_to_the_next_process(place: Place) -> None:
    with place.open() as service:
        service.start()
        job = service.jobs.create("backup", {"type": "full"}, policy="slow", actor="ann")
        eventually(lambda: service.jobs.get(job.id).status == "running")
        assert service.stop(timeout_s=60)
        left = service.jobs.get(job.id)
        assert (left.status, left.attempts) == ("queued", 0)
    (place.root / "go").touch()
    with place.open() as service:
        service.start()
        done = ended(service.jobs, job)
        assert (done.status, done.attempts) == ("succeeded", 1)
        assert done.backup_id is not None
        assert service.index.get(done.backup_id).files == 5
        service.stop()


def test_a_task_that_fails_is_told_of_once_and_goes_on() -> None:
    warnings: list[str] = []
    runs = [0]
    enough = threading.Event()

    def task() -> None:
        runs[0] += 1
        if runs[0] == 6:
            enough.set()
        if runs[0] < 4:
            raise CatalogUnavailable("away", cause="no route")
        if runs[0] == 5:
            raise ZeroDivisionError("oh")

    background = Background([Task(name="t", every_s=0.001, run=task)], SystemClock(), warnings.append)
    background.start()
    assert enough.wait(60)
    background.end()
    background.join(SystemClock().monotonic() + 60)
    assert warnings[:4] == ["t: away: no route", "t: works again", "t: ZeroDivisionError: oh", "t: works again"]


def test_the_audit_log_is_signed_at_the_start_and_at_the_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process left unsigned is not open to changes until an hour after the next start."""

    def entry(service: Service, action: str) -> None:
        with service.catalog.session() as session:
            service.audit.record(session, actor="ann", action=action, object="/", outcome="allow")

    def signed(service: Service) -> tuple[int, int]:
        with service.catalog.reading() as session:
            last = session.scalar(select(func.max(AuditEntry.seq)))
            kept = stored_checkpoints(session)
        beside = CheckpointFile(place.root / "data" / "audit.checkpoints").read()
        assert beside == kept
        return (kept[-1].seq if kept else 0), last or 0

    monkeypatch.setattr(Service, "background", lambda _: [])  # the hourly one does not help
    with place.open(queues=()) as service:  # one that is killed
        entry(service, "before")
        assert signed(service) == (0, 1)
    with place.open(queues=()) as service:
        service.start()
        assert signed(service) == (1, 1)
        entry(service, "meanwhile")
        service.stop()
        assert signed(service) == (2, 2)


def test_an_audit_log_whose_end_was_cut_is_told_of_at_the_start_and_by_its_verification(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Service, "background", lambda _: [])
    with place.open(queues=()) as service:
        for number in range(3):
            service.audit.note(actor="ann", action="some.thing", object=f"/{number}")
        service.start()
        assert service.verify_audit_log().ok
        service.stop()
        with service.catalog.session() as session:
            for table in ("audit", "audit_checkpoints"):
                session.execute(text(f"DROP TRIGGER {table}_no_delete"))
            session.execute(text("DELETE FROM audit_checkpoints"))
            session.execute(text("DELETE FROM audit WHERE seq > 1"))
    assert not any("audit log" in warning for warning in place.warnings)
    with place.open(queues=()) as service:
        service.start()
        verdict = service.verify_audit_log()
        service.stop()
    assert any("the audit log is not what it was: it has no entry 3" in warning for warning in place.warnings)
    assert (verdict.ok, verdict.broken) == (False, 2)


def test_an_audit_log_that_another_key_signed_is_not_good(place: Place) -> None:
    with place.open(queues=()) as service:
        service.audit.note(actor="ann", action="some.thing", object="/")
        service.sign_audit_log()
        assert service.verify_audit_log().ok
        (place.root / "data" / "audit.key").unlink()
        service.audit.note(actor="ann", action="some.thing", object="/")
        service.sign_audit_log()  # by a new one
        assert "not trusted" in service.verify_audit_log().problem


def test_a_service_whose_audit_key_is_no_key_runs_and_says_so(place: Place) -> None:
    (place.root / "data" / "audit.key").write_text("nonsense")
    with place.open(queues=()) as service:
        with service.catalog.session() as session:
            service.audit.record(session, actor="ann", action="x", object="/", outcome="allow")
        service.start()
        assert any(warning.startswith("signing the audit log: ") for warning in place.warnings)
        service.stop()


@pytest.mark.parametrize(("said", "left"), [("", 2), ("  service: {keep_jobs: 2d}", 1)])
def test_jobs_that_ended_are_kept_as_long_as_the_policy_file_says(place: Place, said: str, left: int) -> None:
    place.file.write_text(place.file.read_text().replace("\npolicies:", f"\n{said}\npolicies:"))
    with place.open(queues=()) as service:
        for days in (3, 1):
            job = service.jobs.create("gc", {}, actor="ann")
            at = service.clock.now() - timedelta(days=days)
            ended = {"status": "succeeded", "created_at": at, "finished_at": at, "settled_at": at}
            with service.catalog.session() as session:
                session.execute(update(Job).where(Job.id == job.id).values(**ended))
        (task,) = (task for task in service.background() if task.name == "forgetting old jobs")
        task.run()
        assert len(service.jobs.page(JobFilters()).items) == left
