"""Records and kept statements: a list that was asked for before gives what a new one would."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from backstay.catalog import backup_search, records
from backstay.catalog.backup_search import BackupFilters
from backstay.catalog.database import Catalog
from backstay.catalog.models import Backup, Job
from backstay.catalog.records import Listing
from backstay.control.jobs import listing as job_listing
from backstay.control.jobs.listing import JobFilters

BEGIN = datetime(2026, 1, 1, 12, 30, 15, 999_999, tzinfo=UTC)
NAMES = st.sampled_from(["a", "b", "none"])
MOMENTS = st.integers(0, 12).map(lambda hours: BEGIN + timedelta(hours=hours))
SCOPES = st.lists(st.sampled_from(["/", "/policy/a", "/policy/b", "/policy/b/source/s1"]), max_size=2).map(tuple)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


BACKUPS = st.builds(
    BackupFilters,
    policy=maybe(NAMES),
    source=maybe(st.sampled_from(["s0", "s1"])),
    tag=maybe(NAMES),
    text=maybe(NAMES),
    since=maybe(MOMENTS),
    until=maybe(MOMENTS),
    held=maybe(st.booleans()),
    verified=maybe(st.booleans()),
    scopes=maybe(SCOPES),
)
JOBS = st.builds(
    JobFilters,
    kinds=maybe(st.sampled_from([("backup",), ["gc", "backup"]])),
    other_than=st.sampled_from([(), ("gc",)]),
    status=maybe(st.sampled_from(["queued", ["failed", "queued"]])),
    policy=maybe(NAMES),
    source=maybe(st.sampled_from(["s0", "s1"])),
    actor=maybe(NAMES),
    since=maybe(MOMENTS),
    until=maybe(MOMENTS),
    scopes=maybe(SCOPES),
)


def fill(catalog: Catalog) -> None:
    with catalog.session() as session:
        for number in range(12):
            name, source = ("a", "b")[number % 2], f"s{number % 3}"
            when = BEGIN + timedelta(hours=number // 2)
            session.add(
                Backup(
                    id=f"{number:026d}", repository="r", policy=name, source=source, type="full", host="h", time=when,
                    recorded_at=when, description=name, tags=[name], held=number % 4 == 0,
                    verified_ok=(None, True, False)[number % 3],
                )
            )  # fmt: skip
            session.add(
                Job(
                    id=f"{number:026d}", kind=("backup", "gc")[number % 3 == 0], queue="q", created_at=when, actor=name,
                    status=("queued", "failed")[number % 5 == 0], policy=name, scope=f"/policy/{name}/source/{source}",
                )
            )  # fmt: skip


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    with Catalog.open(f"sqlite:///{tmp_path_factory.mktemp('records') / 'catalog.db'}") as found:
        found.migrate()
        fill(found)
        yield found


def anew(listing: Listing[Any, Any]) -> Listing[Any, Any]:
    """The same list, which never was asked for."""
    found = Listing.__new__(Listing)
    found.__dict__ |= listing.__dict__ | {"_statements": {}}
    return found


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(filters=BACKUPS | JOBS, limit=st.integers(1, 4))
def test_a_kept_statement_gives_what_a_new_one_gives(filled: Catalog, filters: Any, limit: int) -> None:
    kept = backup_search._LISTING if isinstance(filters, BackupFilters) else job_listing.LISTING
    cursor = None
    while True:
        with filled.looking() as connection:
            found = kept.page(connection, filters, limit=limit, cursor=cursor)
            assert found == anew(kept).page(connection, filters, limit=limit, cursor=cursor)
        if (cursor := found.next) is None:
            break


def test_the_values_of_filters_are_those_of_this_time(filled: Catalog) -> None:
    def shown(**filters: Any) -> set[tuple[str | None, str]]:
        with filled.looking() as connection:
            page = job_listing.LISTING.page(connection, JobFilters(**filters))
        return {(job.policy, job.scope) for job in page.items}

    for policy in ("a", "b", "a"):
        assert shown(policy=policy, source="s1") == {(policy, f"/policy/{policy}/source/s1")}
        assert {found for found, _ in shown(actor=policy)} == {policy}


def test_records_are_the_rows_and_do_not_change(catalog: Catalog) -> None:
    fill(catalog)
    with catalog.looking() as connection, catalog.reading() as session:
        found = backup_search.backups_page(connection, BackupFilters(), limit=5, cursor=None).items
        rows = session.scalars(select(Backup).order_by(Backup.time.desc(), Backup.id.desc()).limit(5)).all()
    for record, row in zip(found, rows, strict=True):
        for name in Backup.__table__.columns.keys():  # noqa: SIM118 - a collection of columns
            assert getattr(record, name) == getattr(row, name), name
        assert record.time.tzinfo is UTC
        assert record.time.microsecond == BEGIN.microsecond
    with pytest.raises(AttributeError):
        found[0].held = True


def test_no_more_statements_are_kept_than_so_many(filled: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_MOST_STATEMENTS", 5)
    listing = anew(backup_search._LISTING)
    with filled.looking() as connection:
        for number in range(20):
            assert listing.page(connection, BackupFilters(text=f"{number}")).items == ()
            assert len(listing._statements) <= 5


def test_times_come_back_in_utc_and_documents_as_they_were_written(catalog: Catalog) -> None:
    moment = datetime(2026, 7, 1, 1, 2, 3, tzinfo=timezone(timedelta(hours=2)))
    arguments: dict[str, Any] = {"a": [1, 2.5, None, "ü\n"], "large": 2**63, "none": {}}
    with catalog.session() as session:
        session.add(Job(id="0" * 26, kind="backup", queue="q", created_at=moment, arguments=arguments))
    with catalog.reading() as session:
        job = session.get_one(Job, "0" * 26)
    assert (job.created_at, job.created_at.tzinfo, job.finished_at) == (moment, UTC, None)
    assert (job.arguments, job.result) == (arguments, None)


def test_documents_that_are_not_quite_json_are_read_too(sqlite_catalog: Catalog) -> None:
    with sqlite_catalog.session() as session:
        session.add(
            Job(id="0" * 26, kind="backup", queue="q", created_at=BEGIN, result={"a": float("inf"), "b": "\ud800"})
        )
    with sqlite_catalog.reading() as session:
        assert session.get_one(Job, "0" * 26).result == {"a": float("inf"), "b": "\ud800"}
