"""BackupManager without a policy file: backups, their names, restores, checks, deletion, and the records of it all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from backstay.catalog.models.backups import Backup as BackupRow
from backstay.catalog.models.jobs import DIRECT, Job
from backstay.control.manager.manager import BackupManager
from backstay.control.manager.results import CheckFailed, CheckPassed
from backstay.control.manager.sources import BackupRequest, CommandSource, DatabaseSource, FileSource
from backstay.control.manager.targets import ClusterTarget
from backstay.core.events import Event
from backstay.errors import (
    HoldViolation,
    Interrupted,
    InvalidRequest,
    NaiveTimestamp,
    NotFound,
    ServerExtraMissing,
    SourceRefused,
    StorageRefused,
    WrongKey,
)
from backstay.operations.snapshots.walk import subtree
from backstay.repository.collection.plan import CollectionResult
from backstay.testing import FakeClock
from tests.control.manager.conftest import PASSWORD, jobs
from tests.storage.refusing import refuse_to_delete_packs

DAY = timedelta(days=1)


def listed(backups: BackupManager) -> set[str]:
    """The backups that the catalog lists."""
    with backups.records.catalog.reading() as session:
        return set(session.scalars(select(BackupRow.id)))


def test_a_backup_is_made_listed_and_found_again(backups: BackupManager, documents: Path) -> None:
    made = backups.create_backup(documents, name="letters", description="before the move", tags=["t1"])
    assert (made.name, made.kind, made.description, made.tags) == ("letters", "full", "before the move", ("t1",))
    assert made.paths == (str(documents),)
    assert backups.list() == [made]
    for text in (made.id, made.id[:8], "letters", "latest", "latest:letters", "letters-2025-06-24"):
        assert backups.get(text) == made, text
    assert listed(backups) == {made.id}


def test_a_time_without_a_zone_is_refused_wherever_one_is_taken(backups: BackupManager, documents: Path) -> None:
    backups.create_backup(documents, name="letters")
    naive = datetime(2025, 6, 24)  # noqa: DTZ001 - as a program may have it
    for call in (
        lambda: backups.list(since=naive),
        lambda: backups.list(until=naive),
        lambda: backups.get("letters", at=naive),
        lambda: ClusterTarget(destination="/data", name="main", time=naive),
    ):
        with pytest.raises(NaiveTimestamp, match="2025-06-24T00:00:00"):
            call()


@pytest.mark.parametrize("given", [{"description": "\udcff"}, {"tags": ["\udcff"]}, {"tags": [""]}, {"tags": [" "]}])
def test_words_that_no_snapshot_keeps_are_refused_before_anything_is_read(
    backups: BackupManager, documents: Path, given: dict[str, Any]
) -> None:
    events: list[Event] = []
    with pytest.raises(InvalidRequest):
        backups.create_backup(documents, events=events.append, **given)
    with pytest.raises(InvalidRequest):
        backups.execute(BackupRequest(name="letters", sources=[documents]), events=events.append, **given)
    assert events == []


def test_words_that_are_no_text_are_refused_by_name(backups: BackupManager, documents: Path) -> None:
    made = backups.create_backup(documents, name="letters")
    with pytest.raises(InvalidRequest, match="not valid UTF-8"):
        backups.hold(made.id, reason="\udcff")
    with pytest.raises(InvalidRequest, match="not valid UTF-8"):
        backups.delete(made.id, reason="\udcff")
    with pytest.raises(NotFound):
        backups.verify_restore("\udcff")
    assert backups.list() == [made]


def test_a_target_that_no_directory_can_be_called_is_refused(backups: BackupManager, documents: Path) -> None:
    backups.create_backup(documents, name="letters")
    with pytest.raises(InvalidRequest, match="zero byte"):
        backups.restore("letters", "a\0b")


@pytest.mark.parametrize("place", ["letter", "letter/below", "a\0b"])
def test_a_restore_test_where_no_directory_can_be_is_refused(
    backups: BackupManager, documents: Path, tmp_path: Path, place: str
) -> None:
    backups.create_backup(documents, name="letters")
    (tmp_path / "letter").write_text("a file")
    with pytest.raises(InvalidRequest, match="cannot rehearse in "):
        backups.verify("letters", restore_test=tmp_path / place)


def test_lists_are_newest_first_and_can_be_filtered(backups: BackupManager, documents: Path, clock: FakeClock) -> None:
    first = backups.create_backup(documents, name="a", tags=["x"])
    clock.advance(86_400)
    second = backups.create_backup(documents, name="b")
    assert [one.id for one in backups.list()] == [second.id, first.id]
    assert backups.list(tag="x") == [first]
    assert backups.list(name="b") == [second]
    assert backups.list(since=second.time) == [second]
    assert backups.list(until=second.time) == [first]
    assert backups.list(kind="incremental") == []
    assert backups.list(host="elsewhere") == []


def test_a_name_with_a_day_means_the_newest_of_that_day(
    backups: BackupManager, documents: Path, clock: FakeClock
) -> None:
    backups.create_backup(documents, name="daily")
    clock.advance(3600)
    late = backups.create_backup(documents, name="daily")
    clock.advance(86_400)
    next_day = backups.create_backup(documents, name="daily")
    assert backups.get("daily-2025-06-24") == late
    assert backups.get("daily-2025-06-25") == next_day
    assert backups.get("daily") == next_day
    assert backups.get("daily", at=next_day.time - timedelta(seconds=1)) == late
    with pytest.raises(NotFound, match="2025-06-26"):
        backups.get("daily-2025-06-26")
    with pytest.raises(NotFound):
        backups.get("daily-2025-02-31")
    with pytest.raises(NaiveTimestamp):
        backups.get("daily", at=datetime(2025, 6, 24))  # noqa: DTZ001 - that is the point


def test_a_request_of_several_sources_makes_a_backup_of_each(backups: BackupManager, documents: Path) -> None:
    request = BackupRequest(
        name="shop",
        sources=[FileSource(paths=[documents], exclude=["*.tmp"]), CommandSource(command=["echo", "hello"])],
    )
    run = backups.execute(request)
    assert [one.name for one in run.backups] == ["shop-files", "shop-command"]
    assert set(backups.find("shop")) == set(run.backups)
    assert set(backups.find("shop-2025-06-24")) == set(run.backups)
    with pytest.raises(InvalidRequest, match="2 backups"):
        backups.get("shop")
    assert backups.get("shop-command-2025-06-24") == run.backups[1]
    assert set(backups.delete("shop-2025-06-24")) == {one.id for one in run.backups}
    assert backups.list() == []
    assert listed(backups) == set()


@pytest.mark.parametrize(
    ("request_", "cause"),
    [
        (BackupRequest(name="x", sources=[]), "must not be empty|at least 1"),
        (BackupRequest(name="a/b", sources=["/etc"]), "200 characters"),
        (BackupRequest(name="x", sources=[DatabaseSource(connection="oracle://h/d")]), "oracle"),
        (BackupRequest(name="x", sources=[DatabaseSource(connection="mysql://h/d", schemas=["s"])]), "mysql"),
        (BackupRequest(name="x", sources=[CommandSource(command=[])]), "command"),
    ],
)
def test_requests_that_make_no_sense(backups: BackupManager, request_: BackupRequest, cause: str) -> None:
    with pytest.raises(InvalidRequest, match=cause):
        backups.execute(request_)
    assert jobs(backups) == []


def test_a_source_that_fails_is_raised_and_recorded(backups: BackupManager, documents: Path) -> None:
    request = BackupRequest(name="x", sources=[documents, CommandSource(command=["false"])])
    run = backups.execute(request, check=False)
    assert not run.ok
    assert len(run.backups) == 1, "what can be backed up is"
    assert run.error is not None
    with pytest.raises(type(run.error)):
        backups.execute(request)
    first, second = sorted(jobs(backups), key=lambda job: job.status, reverse=True)
    assert (first.status, second.status) == ("succeeded", "failed")
    assert second.error is not None
    assert second.error["code"] == run.error.code
    assert second.result is not None, "what was made is told all the same"
    assert second.backup_id in listed(backups)


def test_items_that_could_not_be_read_are_told(
    tmp_path: Path, environ: dict[str, str], clock: FakeClock, documents: Path
) -> None:
    told: list[str] = []
    lost = [tmp_path / f"lost-{number}" for number in range(5)]
    with BackupManager(tmp_path / "r", password=PASSWORD, environ=environ, clock=clock, warn=told.append) as backups:
        assert backups.create_backup([documents, *lost[:1]]).files == 6
        assert told == [f"the backup of backup lacks 1 item, or parts of them: {lost[0]}: no such file or directory"]
        told.clear()
        assert backups.create_backup([documents, *lost]).files == 6
        assert len(told) == 1
        assert "lacks 5 items" in told[0]
        assert told[0].endswith(f"{lost[2]}: no such file or directory, and 2 more items")
        told.clear()
        backups.create_backup(documents)
    assert told == []


def test_retention_days_let_old_backups_go(backups: BackupManager, documents: Path, clock: FakeClock) -> None:
    backups.configure(retention_days=30, sources=[documents])
    old = backups.create_backup(name="x")
    clock.advance(29 * 86_400)
    newer = backups.create_backup(name="x")
    assert {one.id for one in backups.list()} == {old.id, newer.id}
    clock.advance(2 * 86_400)
    newest = backups.create_backup(name="x")
    assert {one.id for one in backups.list()} == {newer.id, newest.id}
    assert listed(backups) == {newer.id, newest.id}


def test_encryption_cannot_be_turned_off(backups: BackupManager) -> None:
    assert backups.configure(encryption=True, compression="gzip") is backups
    with pytest.raises(InvalidRequest, match="always encrypted"):
        backups.configure(encryption=False)
    with pytest.raises(InvalidRequest, match="rot13"):
        backups.configure(compression="rot13")
    with pytest.raises(InvalidRequest, match="a day at least"):
        backups.configure(retention_days=0)


def test_without_a_source_it_is_said_what_is_missing(backups: BackupManager) -> None:
    with pytest.raises(InvalidRequest, match="neither a source nor a policy"):
        backups.create_backup()
    with pytest.raises(InvalidRequest, match="no policy file"):
        backups.execute("daily")


def test_a_key_file_is_made_where_no_password_is_given(
    tmp_path: Path, environ: dict[str, str], documents: Path
) -> None:
    told: list[str] = []
    with BackupManager(tmp_path / "repository", environ=environ, warn=told.append) as backups:
        made = backups.create_backup(documents)
    (key,) = (tmp_path / "home/.config/backstay").glob("*.key")
    assert key.stat().st_mode & 0o777 == 0o600
    assert any(str(key) in line for line in told)
    with BackupManager(tmp_path / "repository", environ=environ) as backups:
        assert backups.list() == [made]
    key.unlink()
    with (
        BackupManager(tmp_path / "repository", environ=environ) as backups,
        pytest.raises(WrongKey, match="no password"),
    ):
        backups.list()


def test_whoever_opens_a_repository_that_is_open_in_this_process_has_its_cache_too(
    tmp_path: Path, environ: dict[str, str], documents: Path
) -> None:
    """As when a service answers while its jobs run."""
    told: list[str] = []
    with BackupManager(tmp_path / "repository", password=PASSWORD, environ=environ, warn=told.append) as backups:
        first = backups.create_backup(documents, name="first")
        with backups.opener.open() as early:
            early.reload_index()
            (documents / "more.txt").write_text("what the other one did not know when it was opened")
            second = backups.create_backup(documents, name="second")
            with backups.opener.open() as late:
                assert early.cache == late.cache is not None
            for made in (
                first,
                second,
            ):  # it sees what was stored meanwhile, and stays open
                found, _ = subtree(early.snapshots.get(made.id).root, os.fsencode(documents), early.reader)
                assert found is not None
    assert told == []


# -- checks, holds, collection


def test_checks_have_one_outcome_each(backups: BackupManager, documents: Path, tmp_path: Path) -> None:
    backups.create_backup(documents)
    found = backups.verify("latest", checks=["integrity", "completeness"], min_bytes=10, restore_test=tmp_path / "test")
    assert {one.check for one in found} == {"integrity", "completeness", "size", "rehearsal"}
    assert all(isinstance(one, CheckPassed) and one.details for one in found)
    assert list((tmp_path / "test").iterdir()) == []
    (size,) = [one for one in backups.verify("latest", min_bytes="1GiB") if not one.ok]
    assert isinstance(size, CheckFailed)
    assert size.check == "size"
    backups.verify_backup("latest")
    assert sorted(job.kind for job in jobs(backups)) == ["backup", "rehearsal", "verification", "verification"]


def test_what_is_held_is_not_deleted(backups: BackupManager, documents: Path) -> None:
    made = backups.create_backup(documents)
    assert backups.hold("latest", reason="a lawsuit").held
    assert backups.get("latest").held
    with pytest.raises(HoldViolation) as held:
        backups.delete("latest")
    assert held.value.cause == "a lawsuit"
    assert sorted(job.status for job in jobs(backups)) == ["failed", "succeeded"]
    assert not backups.release("latest", reason="it is over").held
    assert backups.delete("latest") == (made.id,)
    with pytest.raises(NotFound):
        backups.get(made.id)
    done = backups.gc(allow_empty=True)
    assert isinstance(done, CollectionResult)
    assert done.deleted_packs > 0


def test_a_collection_that_the_store_refused_something_fails_with_its_result(
    backups: BackupManager, documents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_delete_packs(monkeypatch)
    backups.create_backup(documents)
    backups.delete("latest")
    with pytest.raises(StorageRefused, match="refused to delete"):
        backups.gc(allow_empty=True)
    job = next(job for job in jobs(backups) if job.kind == "gc")
    assert job.status == "failed"
    assert job.result is not None
    assert job.result["refused"][0]["reason"] == "it answered 403"


# -- records


def test_who_asks_for_the_end_gets_it(backups: BackupManager, documents: Path) -> None:
    def stop(event: Event) -> None:
        raise Interrupted("stopped", cause=type(event).__name__)

    with pytest.raises(Interrupted):
        backups.create_backup(documents, events=stop)
    assert [job.status for job in jobs(backups)] == ["cancelled"]
    assert backups.list() == []
    assert backups.create_backup(documents).files == 6


def test_a_job_keeps_its_own_record(backups: BackupManager, documents: Path) -> None:
    run = backups.execute(BackupRequest(name="x", sources=[documents]), job_id="01j0000000000000000000000a")
    assert run.id == "01j0000000000000000000000a"
    assert jobs(backups) == []


def test_a_run_whose_process_died_does_not_run_for_ever(
    backups: BackupManager, documents: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    script = (
        "import os, sys; from backstay.control.manager.manager import BackupManager\n"
        "def die(event): os._exit(9)\n"
        "BackupManager(sys.argv[1], password=sys.argv[3]).create_backup(sys.argv[2], events=die)"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "repository"), str(documents), PASSWORD]
    assert subprocess.run(words, env=environ, check=False).returncode == 9
    (job,) = jobs(backups)
    assert (job.queue, job.status) == (DIRECT, "failed")
    assert job.error is not None
    assert job.error["code"] == "JobLost"


def test_a_run_of_a_living_process_or_of_another_machine_is_left_alone(
    backups: BackupManager, documents: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    backups.create_backup(documents)
    records = backups.records
    with records.catalog.session() as session:
        session.execute(update(Job).values(status="running"))
    with BackupManager(tmp_path / "repository", password=PASSWORD, environ=environ) as other:
        assert [job.status for job in jobs(other)] == ["running"]
    with records.catalog.session() as session:
        session.execute(update(Job).values(worker=f"{DIRECT}:1:1:another boot:pid:[1]"))
    with BackupManager(tmp_path / "repository", password=PASSWORD, environ=environ) as other:
        assert [job.status for job in jobs(other)] == ["running"]


def test_estimates_go_by_earlier_restores(
    backups: BackupManager, documents: Path, tmp_path: Path, clock: FakeClock
) -> None:
    (documents / "large.bin").write_bytes(os.urandom(2 << 20))
    backups.create_backup(documents)

    def slow(event: Event) -> None:
        clock.advance(1.0)

    backups.restore("latest", tmp_path / "one", events=slow)
    plan = backups.plan_restore("latest", tmp_path / "two")
    assert plan.based_on == "history"
    assert plan.seconds >= 1.0


def test_times_are_utc(backups: BackupManager, documents: Path) -> None:
    assert backups.create_backup(documents).time.tzinfo is UTC


def test_a_source_that_cannot_be_reached_is_typed(backups: BackupManager) -> None:
    with pytest.raises((SourceRefused, NotFound)):
        backups.create_backup("sqlite:///nowhere/at/all.db")


def test_backups_that_only_begin_alike_are_not_deleted_together(backups: BackupManager, documents: Path) -> None:
    one = backups.create_backup(documents / "letters", name="db-prod")
    backups.create_backup(documents / "notes.tmp", name="db-test")
    assert len(backups.find("db")) == 2
    with pytest.raises(InvalidRequest, match="nothing to do with each other"):
        backups.delete("db")
    assert len(backups.list()) == 2
    assert backups.delete("db-prod") == (one.id,)


def test_latest_is_no_name(backups: BackupManager, documents: Path, clock: FakeClock) -> None:
    backups.create_backup(documents, name="latest-shop")
    clock.advance(60)
    newest = backups.create_backup(documents, name="other")
    assert backups.find("latest") == [newest]


def test_without_a_catalog_it_works_and_records_nothing(
    tmp_path: Path, environ: dict[str, str], documents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "sqlalchemy" else True)
    with BackupManager(tmp_path / "repository", password=PASSWORD, environ=environ) as backups:
        made = backups.create_backup(documents)
        run = backups.restore(made.id, tmp_path / "out")
        assert backups.plan_restore(made.id, tmp_path / "out").based_on == "assumption"
        for ask in (backups.list_restores, lambda: backups.verify_restore(run.id), lambda: backups.schedules):
            with pytest.raises(ServerExtraMissing):
                ask()
        assert backups.delete("latest") == (made.id,)
    named = BackupManager(tmp_path / "repository", database=tmp_path / "c.db", environ=environ)
    with pytest.raises(ServerExtraMissing):
        named.list_restores()
    assert not (tmp_path / "home/.local/share/backstay").exists()


def test_what_is_empty_or_unknown_is_not_guessed(backups: BackupManager, documents: Path, tmp_path: Path) -> None:
    """Nothing, and nothing that exists, must not pass for a check that went well, for all, or for what is current."""
    backups.create_backup(documents, name="-odd")
    with pytest.raises(InvalidRequest):
        backups.delete("")
    assert len(backups.list()) == 1
    refused: list[Callable[[], object]] = [
        lambda: backups.create_backup(""),
        lambda: backups.create_backup([documents, ""]),
        lambda: backups.restore("latest", []),
        lambda: backups.verify("latest", checks=["integrty"]),  # type: ignore[list-item]
        lambda: backups.verify("latest", checks=[]),
        lambda: backups.verify("latest", read_data=10),
        lambda: backups.verify("latest", read_data=-0.1),
        lambda: backups.verify("latest", read_data=float("nan")),
        lambda: backups.configure(max_size=-1),
        lambda: backups.configure(compression_level=9),
        lambda: backups.configure(storage_location=""),
        lambda: BackupManager(""),
    ]
    for call in refused:
        with pytest.raises(InvalidRequest):
            call()
