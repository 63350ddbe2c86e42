"""How the backups are, in one answer; and what is measured of a repository."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from backstay.catalog.database import Catalog
from backstay.control.metrics.measuring import measure
from backstay.control.metrics.monitor import MonitorError, MonitorStatus, monitor_status
from backstay.control.metrics.repositories import newest_samples, record_sample
from backstay.repository.repository import Environment, Repository
from backstay.testing.clock import FakeClock
from backstay.trust.secrets import Secret
from tests.control.notifying.rows import backup, job, sample

HOUR = timedelta(hours=1)


def add(catalog: Catalog, *rows: Any) -> None:
    with catalog.session() as session:
        session.add_all(rows)


def test_before_the_first_backup_there_is_none(new_catalog: Catalog) -> None:
    assert monitor_status(new_catalog) == MonitorStatus(status="never", last_backup=None, size=0, duration=0)


def test_it_goes_from_running_to_a_success_and_a_failure(new_catalog: Catalog, clock: FakeClock) -> None:
    begun = clock.now()
    running = job(begun, status="running")
    add(new_catalog, running)
    assert monitor_status(new_catalog, "shop").status == "in_progress"
    add(new_catalog, backup(begun), backup(begun + HOUR), backup(begun, source="shop-db"))
    with new_catalog.session() as session:
        ended = session.merge(running)
        ended.status, ended.finished_at = "succeeded", begun
    assert monitor_status(new_catalog, "shop") == MonitorStatus(
        status="success", last_backup=begun + HOUR, size=2000, duration=5
    )
    add(new_catalog, job(begun + 2 * HOUR, status="failed"), job(begun + 3 * HOUR, status="cancelled"))
    assert monitor_status(new_catalog, "shop") == MonitorStatus(
        status="failure",
        last_backup=begun + HOUR,
        size=2000,
        duration=5,
        errors=(
            MonitorError(
                code="InsufficientSpace", title="there is no room", cause="the disk is full", solution="buy one"
            ),
        ),
    )


def test_all_policies_together_fail_if_one_does(new_catalog: Catalog, clock: FakeClock) -> None:
    add(new_catalog, job(clock.now()), job(clock.now(), policy="other", status="failed"), backup(clock.now()))
    assert monitor_status(new_catalog).status == "failure"
    assert monitor_status(new_catalog, "shop").status == "success"
    assert monitor_status(new_catalog, "other").last_backup is None


def test_a_damaged_backup_is_not_the_last_good_one(new_catalog: Catalog, clock: FakeClock) -> None:
    add(new_catalog, backup(clock.now()), backup(clock.now() + HOUR, damaged=True))
    assert monitor_status(new_catalog).last_backup == clock.now()


def test_a_repository_is_measured_as_it_lies_there(new_catalog: Catalog, tmp_path: Path, clock: FakeClock) -> None:
    place = tmp_path / "repository"
    with Repository.create(place, Secret.new_keyfile(), environment=Environment(clock=clock)) as repository:
        clock.advance(86400)
        (found,) = measure(repository, clock.now(), quota_bytes=10**9)
    assert found.used_bytes == sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    assert found.free_bytes is not None
    assert found.quota_bytes == 10**9
    assert found.facts["key_ages"] == {"1": 86400.0}
    assert found.facts["wal_lags"] == {}
    assert found.facts["disk_bytes"] > found.free_bytes
    with new_catalog.session() as session:
        record_sample(session, found)


def test_samples_of_long_ago_are_forgotten(new_catalog: Catalog, clock: FakeClock) -> None:
    with new_catalog.session() as session:
        for days in (0, 1, 91):
            record_sample(session, sample(clock.now() + timedelta(days=days), days))
    with new_catalog.reading() as session:
        assert [one.used_bytes for one in newest_samples(session)] == [91]
        assert session.connection().exec_driver_sql("select count(*) from repository_samples").scalar() == 2
