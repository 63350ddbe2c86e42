"""From schedules to jobs: each time once, whoever looks, whatever crashes, however clocks are set."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from backstay.catalog.audit import AuditLog
from backstay.catalog.database import Catalog
from backstay.catalog.models import AuditEntry, Job, ScheduleRecord
from backstay.catalog.models.jobs import JobKind
from backstay.control.scheduling import configuration
from backstay.control.scheduling.configuration import ConfigurationMarks
from backstay.control.scheduling.kinds import job_id
from backstay.control.scheduling.schedules import Schedules
from backstay.control.scheduling.specs import ScheduleSpec
from backstay.control.scheduling.ticker import Ticked, Ticker
from backstay.core.ids import is_ulid
from backstay.errors import CatalogUnavailable, InvalidRequest
from backstay.sources.source import Directory
from backstay.testing.clock import FakeClock
from tests.control.scheduling.policy_files import SHOP, loaded

HOURLY = ScheduleSpec(
    name="Hourly", policy="shop", type="incremental", cron="0 * * * *", retention_days=7, options={"tags": ["t"]}
)
HOUR = 3600.0


class Rows:
    """Keeps jobs as the service does, and runs none."""

    def __init__(self, catalog: Catalog, clock: FakeClock) -> None:
        self.catalog, self.clock = catalog, clock
        self.fails: Exception | None = None

    def create(self, kind: JobKind, arguments: dict[str, Any], *, job_id: str | None = None, **given: Any) -> Job:
        if self.fails is not None:
            raise self.fails
        job = Job(
            id=job_id, kind=kind, status="queued", queue="q", arguments=arguments, created_at=self.clock.now(), **given
        )
        try:
            with self.catalog.session() as session:
                session.add(job)
        except IntegrityError:
            return self.all()[0]
        return job

    def all(self) -> list[Job]:
        with self.catalog.reading() as session:
            return list(session.scalars(select(Job).order_by(Job.scheduled_for)))

    def end(self, status: str = "succeeded") -> None:
        with self.catalog.session() as session:
            session.execute(update(Job).values(status=status))

    def times(self) -> list[str]:
        return [f"{job.scheduled_for:%d %H:%M}" for job in self.all()]


class World:
    """A catalog with its schedules and jobs, and as many tickers as somebody likes."""

    def __init__(self, catalog: Catalog, clock: FakeClock) -> None:
        self.catalog, self.clock = catalog, clock
        self.schedules, self.jobs = Schedules(catalog, clock), Rows(catalog, clock)
        self.missed: list[str] = []
        self.ticker = self.new()

    def new(self, marks: ConfigurationMarks | None = None) -> Ticker:
        return Ticker(self.schedules, self.jobs, self.clock, on_missed=self._note, marks=marks)

    def _note(self, session: Session, schedule: ScheduleRecord, why: str) -> None:
        assert session.in_transaction()
        self.missed.append(why)


@pytest.fixture
def world(catalog: Catalog, clock: FakeClock) -> World:
    return World(catalog, clock)


@pytest.fixture
def small(sqlite_catalog: Catalog, clock: FakeClock) -> World:
    return World(sqlite_catalog, clock)


def test_a_time_that_has_come_makes_one_job(world: World) -> None:
    made = world.schedules.create(HOURLY)
    assert world.ticker.tick().jobs == []
    world.clock.advance(HOUR)
    assert len(world.ticker.tick().jobs) == 1
    assert world.ticker.tick().jobs == []
    (job,) = world.jobs.all()
    time = datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert (job.id, job.kind, job.policy, job.scope) == (job_id(made.id, time), "backup", "shop", "/policy/shop")
    assert is_ulid(job.id)
    assert (job.schedule_id, job.scheduled_for, job.actor) == (made.id, time, "schedule:Hourly")
    assert job.arguments == {
        "policy": "shop",
        "type": "incremental",
        "sources": [],
        "retention_days": 7,
        "tags": ["t"],
        "description": None,
    }
    row = world.schedules.get(made.id)
    assert (row.last_run_at, row.last_job_id, row.claimed) == (time, job.id, None)
    assert row.next_run_at == time + timedelta(hours=1)
    assert row.version == 1  # nobody changed it


def test_other_types_make_their_kinds_of_jobs(small: World) -> None:
    for kind in ("full", "verification", "prune"):
        small.schedules.create(replace(HOURLY, name=kind, type=kind))
    for kind in ("gc", "copy"):
        small.schedules.create(replace(HOURLY, name=kind, type=kind, policy=""))
    small.clock.advance(HOUR)
    small.ticker.tick()
    assert {(job.kind, job.policy, job.scope, job.arguments.get("type")) for job in small.jobs.all()} == {
        ("backup", "shop", "/policy/shop", "full"),
        ("verification", "shop", "/policy/shop", None),
        ("prune", "shop", "/policy/shop", None),
        ("gc", None, "/repository", None),
        ("copy", None, "/repository", None),
    }


def test_a_schedule_without_work_is_left_out_and_told_once_each_time_that_it_is_lost(
    small: World, tmp_path: Path
) -> None:
    """A policy that keeps everything has nothing to prune: a job for it would fail at each time anew."""
    with_rules = "backup_manager:\n  retention: {keep_last: 3}" + SHOP.removeprefix("\nbackup_manager:")
    file = loaded(tmp_path, with_rules)
    small.schedules = Schedules(small.catalog, small.clock, policies=lambda: file)
    small.ticker = small.new()
    made = small.schedules.create(replace(HOURLY, type="prune"))

    def hours(count: int) -> int:
        before = len(small.jobs.all())
        for _ in range(count):
            small.clock.advance(HOUR)
            small.ticker.tick()
            small.jobs.end()
        return len(small.jobs.all()) - before

    why = "nothing to do: the policy shop keeps everything: neither it nor `backup_manager` has a `retention`"
    assert (hours(1), small.missed) == (1, [])
    file = loaded(tmp_path)
    assert (hours(3), small.missed, small.schedules.get(made.id).last_missed) == (0, [why], why)
    file = loaded(tmp_path, with_rules)
    assert (hours(2), small.missed, small.schedules.get(made.id).last_missed) == (2, [why], None)
    file = loaded(tmp_path, with_rules.replace("  shop:", "  stall:"))
    assert hours(2) == 0
    assert len(small.missed) == 2
    assert small.missed[1].startswith("nothing to do: there is no policy 'shop' in ")
    file = loaded(tmp_path)
    assert (hours(2), small.missed[2:]) == (0, [why])
    with small.catalog.reading() as session:
        told = [entry.reason for entry in session.scalars(select(AuditEntry)) if entry.action == "schedule.missed"]
    assert told == small.missed


def test_logs_and_configuration_are_those_of_the_sources_that_have_them_as_the_file_stands(
    small: World, tmp_path: Path
) -> None:
    file = loaded(tmp_path)
    small.schedules = Schedules(small.catalog, small.clock, policies=lambda: file)
    small.ticker = small.new()
    made = {kind: small.schedules.create(replace(HOURLY, type=kind)) for kind in ("transaction_logs", "configuration")}

    def sources_of_a_run() -> dict[str, list[str]]:
        small.clock.advance(HOUR)
        ticked = small.ticker.tick()
        jobs = {job.id: job for job in small.jobs.all() if job.id in ticked.jobs}
        small.jobs.end()
        names = {made[kind].id: kind for kind in made}
        return {names[job.schedule_id or ""]: job.arguments["sources"] for job in jobs.values()}

    assert sources_of_a_run() == {"transaction_logs": ["shop-db"], "configuration": ["shop-files"]}
    more = SHOP.replace("/srv/shop.db}", "/srv/shop.db}\n      - {type: sqlite, name: more, path: /srv/more.db}")
    file = loaded(tmp_path, more, config="/data/pictures")
    assert sources_of_a_run() == {"transaction_logs": ["shop-db", "shop-more"]}
    assert small.missed == ["nothing to do: no source of the policy shop holds configuration"]


def test_many_hosts_make_one_job_for_each_time(new_url: Callable[[str], str], clock: FakeClock) -> None:
    for kind in ("sqlite", "postgresql"):
        url = new_url(kind)
        with Catalog.open(url) as catalog:
            world = World(catalog, clock)
            for number in range(20):
                world.schedules.create(replace(HOURLY, name=str(number)))
            tickers = [World(Catalog.open(url), clock) for _ in range(4)]
            clock.advance(2 * HOUR)
            with ThreadPoolExecutor(4) as threads:
                done = list(threads.map(lambda one: one.ticker.tick(), tickers))
            for other in tickers:
                other.catalog.close()
            assert len(world.jobs.all()) == 20
            # A host may take up what a slower one has claimed and not made yet: both tell of it, and it is one job.
            assert len({job for one in done for job in one.jobs}) == 20


def test_more_than_one_batch_is_done_in_one_tick(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backstay.control.scheduling.ticker._AT_ONCE", 10)
    with small.catalog.session() as session:
        for number in range(25):
            small.schedules.create(replace(HOURLY, name=str(number)), session=session)
    small.clock.advance(HOUR)
    assert len(small.ticker.tick().jobs) == 25


def test_what_was_missed_runs_once(world: World) -> None:
    made = world.schedules.create(HOURLY)
    world.clock.advance(10.5 * HOUR)
    world.ticker.tick()
    assert world.jobs.times() == ["01 10:00"]
    assert world.schedules.get(made.id).next_run_at == datetime(2026, 1, 1, 11, tzinfo=UTC)
    assert world.missed == ["9 times before 2026-01-01 10:00 UTC did not run, and are made up for by it"]


def test_a_run_that_has_not_ended_lets_the_next_be_left_out_and_says_so(world: World) -> None:
    made = world.schedules.create(HOURLY)
    ticked = Ticked()
    for _ in range(3):
        world.clock.advance(HOUR)
        ticked = world.ticker.tick()
    why = "2026-01-01 03:00 UTC: the run before had not ended"
    assert world.jobs.times() == ["01 01:00"]
    assert ticked.missed == {made.id: why}
    assert world.schedules.get(made.id).last_missed == why
    assert len(world.missed) == 2
    told = AuditLog(world.catalog, world.clock).page().items
    assert [(entry.action, entry.outcome, entry.object) for entry in told] == [
        ("schedule.missed", "error", "/policy/shop")
    ] * 2
    world.jobs.end()
    world.clock.advance(HOUR)
    world.ticker.tick()
    assert world.jobs.times() == ["01 01:00", "01 04:00"]


def test_a_crash_between_decision_and_job_loses_nothing(world: World) -> None:
    made = world.schedules.create(HOURLY)
    world.clock.advance(HOUR)
    world.jobs.fails = CatalogUnavailable("away")
    with pytest.raises(CatalogUnavailable):
        world.ticker.tick()
    assert world.schedules.get(made.id).claimed == ["2026-01-01T01:00:00+00:00"]
    world.jobs.fails = None
    assert world.new().tick().jobs == [job_id(made.id, datetime(2026, 1, 1, 1, tzinfo=UTC))]  # another process
    assert world.new().tick().jobs == []
    assert world.jobs.times() == ["01 01:00"]
    assert world.schedules.get(made.id).claimed is None


def test_a_crash_after_the_job_makes_no_other(world: World) -> None:
    made = world.schedules.create(HOURLY)
    world.clock.advance(HOUR)
    world.ticker.tick()
    with world.catalog.session() as session:  # the claim as it was
        session.get_one(ScheduleRecord, made.id).claimed = ["2026-01-01T01:00:00+00:00"]
    world.clock.advance(120)
    world.ticker.tick()
    assert world.jobs.times() == ["01 01:00"]
    assert world.schedules.get(made.id).claimed is None


def test_a_job_that_cannot_be_made_does_not_keep_others_from_being_made(small: World) -> None:
    made = small.schedules.create(HOURLY)
    small.clock.advance(HOUR)
    small.jobs.fails = InvalidRequest("no such queue")
    small.ticker.tick()
    small.jobs.fails = None
    small.clock.advance(HOUR)
    small.ticker.tick()
    assert small.jobs.times() == ["01 02:00"]
    assert small.schedules.get(made.id).last_missed == "no such queue"


def test_paused_ones_do_not_run_until_their_pause_is_over(small: World) -> None:
    made = small.schedules.create(HOURLY)
    small.schedules.pause(made.id, until=small.clock.now() + timedelta(hours=3, minutes=30), reason="moving")
    for _ in range(5):
        small.clock.advance(HOUR)
        small.ticker.tick()
        small.jobs.end()
    assert small.jobs.times() == ["01 04:00", "01 05:00"]
    row = small.schedules.get(made.id)
    assert (row.paused_until, row.paused_reason, row.last_missed) == (None, None, None)


def test_a_clock_that_was_years_ahead_and_is_set_right_lets_schedules_run(small: World) -> None:
    made = small.schedules.create(HOURLY)
    small.ticker.tick()
    small.clock.jump(1000 * 86_400)
    assert small.ticker.tick().jumped_s == 1000 * 86_400
    small.jobs.end()
    small.clock.jump(-1000 * 86_400)
    small.clock.advance(5)
    assert small.ticker.tick().jumped_s == -1000 * 86_400
    assert small.schedules.get(made.id).next_run_at == datetime(2026, 1, 1, 1, tzinfo=UTC)
    small.clock.advance(HOUR)
    small.ticker.tick()
    assert small.jobs.times()[0] == "01 01:00"


def test_a_clock_that_was_set_right_while_nothing_ran_is_noticed(small: World) -> None:
    made = small.schedules.create(HOURLY)
    with small.catalog.session() as session:
        row = session.get_one(ScheduleRecord, made.id)
        row.fires_at = row.next_run_at = datetime(2030, 1, 1, tzinfo=UTC)
    small.new().tick()
    assert small.schedules.get(made.id).next_run_at == datetime(2026, 1, 1, 1, tzinfo=UTC)


def test_a_clock_that_goes_back_runs_no_time_twice(small: World) -> None:
    small.schedules.create(HOURLY)
    small.clock.advance(HOUR)
    small.ticker.tick()
    small.jobs.end()
    small.clock.jump(-1800)
    for _ in range(4):
        small.ticker.tick()
        small.clock.advance(600)
        small.jobs.end()
    assert small.jobs.times() == ["01 01:00"]


def test_a_night_on_which_clocks_go_back_has_one_run(sqlite_catalog: Catalog) -> None:
    world = World(sqlite_catalog, FakeClock(datetime(2026, 10, 24, 22, tzinfo=UTC)))
    world.schedules.create(replace(HOURLY, cron="30 2 * * *", timezone="Europe/Berlin"))
    for _ in range(6 * 6):
        world.clock.advance(600)
        world.ticker.tick()
        world.jobs.end()
    assert world.jobs.times() == ["25 00:30"]


# -- configurations that have changed


@pytest.fixture
def config(tmp_path: Path) -> Path:
    place = tmp_path / "config"
    (place / "inner").mkdir(parents=True)
    (place / "app.yaml").write_text("a: 1")
    (place / "inner" / "b.conf").write_text("b")
    return place


@pytest.fixture
def ticker(small: World, config: Path, tmp_path: Path) -> Iterator[Ticker]:
    """One that watches the configuration."""
    file = loaded(tmp_path, config=str(config))
    small.schedules.sync_from_policies(file)
    ticker = small.new(ConfigurationMarks(lambda: file, small.clock, {}))
    yield ticker
    ticker.close()


def test_a_configuration_is_backed_up_when_it_has_changed(small: World, ticker: Ticker, config: Path) -> None:

    def minute() -> int:
        small.clock.advance(60)
        found = len(ticker.watch().jobs)
        small.jobs.end()
        return found

    changes: list[Callable[[], object]] = [
        lambda: (config / "inner" / "b.conf").write_text("longer"),
        lambda: (config / "new.conf").write_text(""),
        (config / "new.conf").unlink,
        lambda: (config / "app.yaml").chmod(0o600),
        lambda: (config / "inner").rename(config / "outer"),
    ]
    assert [minute(), minute(), minute()] == [1, 0, 0]  # the first look is a change too
    for change in changes:
        change()
        assert [minute(), minute()] == [1, 0]
    (config.parent / "neighbour").write_text("not ours")
    assert minute() == 0
    assert {tuple(job.arguments["sources"]) for job in small.jobs.all()} == {("shop-files",)}
    assert small.missed == []


def test_a_change_far_below_is_seen(small: World, ticker: Ticker, config: Path) -> None:
    place = config
    for _ in range(1100):
        place /= "d"
        place.mkdir()
    counts = []
    for _ in range(2):
        small.clock.advance(60)
        counts.append(len(ticker.watch().jobs))
        small.jobs.end()
        (place / "file").touch()
    assert counts == [1, 1]
    assert small.missed == []
    subprocess.run(["rm", "-rf", config / "d"], check=True)  # what pytest calls nests


def test_a_change_during_a_backup_is_backed_up_after_it(small: World, ticker: Ticker, config: Path) -> None:
    small.clock.advance(60)
    ticker.watch()
    (config / "app.yaml").write_text("a: 22")
    small.clock.advance(60)
    assert ticker.watch().jobs == []  # still running
    small.jobs.end()
    small.clock.advance(60)
    assert len(ticker.watch().jobs) == 1


def test_a_backup_of_a_change_that_failed_is_tried_again_later(small: World, ticker: Ticker) -> None:
    small.clock.advance(60)
    ticker.watch()
    small.jobs.end("failed")
    found = []
    for _ in range(12):
        small.clock.advance(60)
        found.append(len(ticker.watch().jobs))
    assert found == [0] * 9 + [1, 0, 0]


def test_too_much_to_look_at_is_said_once(small: World, ticker: Ticker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backstay.control.scheduling.configuration.MOST_FILES", 3)
    for _ in range(3):
        small.clock.advance(60)
        assert ticker.watch().jobs == []
    (why,) = small.missed
    assert "more than 3 files" in why


@pytest.mark.usefixtures("ticker")
def test_ordinary_ticks_look_at_no_configuration(small: World) -> None:
    small.clock.advance(60)
    assert small.ticker.tick().jobs == []
    assert small.ticker.watch().jobs == []  # this host has no files of policies


def test_a_configuration_that_nothing_happens_to_is_not_looked_at(
    small: World, ticker: Ticker, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[bytes] = []
    walk = configuration._walk

    def counted(directory: Directory) -> Iterator[bytes]:
        looked.append(directory.path)
        return walk(directory)

    monkeypatch.setattr(configuration, "_walk", counted)

    def looks(minutes: int) -> int:
        looked.clear()
        for _ in range(minutes):
            small.clock.advance(60)
            ticker.watch()
            small.jobs.end()
        return looked.count(b"/")

    assert looks(5) == 1
    (config / "inner" / "b.conf").write_text("another")
    assert looks(5) == 1
    (config / "inner" / "b.conf").write_text("another")  # equal, but for the time
    assert looks(5) == 1
    assert looks(60) == 1  # once an hour in any case
    os.link(config / "app.yaml", config / "other name.yaml")
    assert looks(5) == 5  # what is written through a name elsewhere would not be told
