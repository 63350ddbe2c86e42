"""Schedules of people and of the policy file: made, changed, paused, looked at."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from backstay.catalog.database import Catalog
from backstay.catalog.models import ScheduleRecord
from backstay.control.scheduling.from_policies import SyncedSchedules
from backstay.control.scheduling.schedules import ScheduleFilters, Schedules
from backstay.control.scheduling.specs import ScheduleSpec
from backstay.errors import InvalidRequest, NotFound, PreconditionFailed
from backstay.testing.clock import FakeClock
from tests.control.scheduling.policy_files import SHOP, loaded

DAILY = ScheduleSpec(name="Daily", policy="shop", type="full", cron="0 2 * * *", timezone="Europe/Berlin")


def test_one_that_is_made_is_there_with_its_next_time(catalog: Catalog, clock: FakeClock) -> None:
    schedules = Schedules(catalog, clock)
    made = schedules.create(replace(DAILY, options={"tags": ["t1"]}, retention_days=30, sources=["shop-db"]))
    found = schedules.get(made.id)
    assert found.next_run_at == datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert (found.name, found.cron, found.origin, found.version) == ("Daily", "0 2 * * *", "api", 1)
    assert (found.options, found.retention_days, found.sources) == ({"tags": ["t1"]}, 30, ["shop-db"])
    hours = [time.astimezone(ZoneInfo("Europe/Berlin")).hour for time in schedules.preview(made.id, 100)]
    assert hours == [2] * 87 + [3] + [2] * 12  # on one night there is no such hour


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("name", {"name": " "}),
        ("name", {"name": "x" * 256}),
        ("type", {"type": "cold-ish"}),
        ("cron", {"cron": "99 * * * *"}),
        ("cron", {"cron": "0 0 30 2 *"}),
        ("cron", {"cron": ""}),
        ("timezone", {"timezone": "Mars/Olympus"}),
        ("timezone", {"timezone": "../../etc/passwd"}),
        ("policy", {"policy": ""}),
        ("policy", {"policy": "none"}),
        ("policy", {"type": "gc"}),
        ("sources", {"sources": ["nothing"]}),
        ("jitter_s", {"jitter_s": -1}),
        ("jitter_s", {"jitter_s": 86_401}),
        ("jitter_s", {"cron": "*/5 * * * *", "jitter_s": 300}),
        ("misfire_grace_s", {"misfire_grace_s": -1}),
        ("retention_days", {"retention_days": 0}),
        ("options", {"options": {"policy": "other"}}),
        ("options", {"options": {"tags": "t1"}}),
        ("options", {"options": {"tags": [""]}}),
        ("options", {"options": {"description": 7}}),
        ("policy", {"type": "prune"}),
        ("policy", {"type": "copy"}),
        ("type", {"type": "copy", "policy": ""}),
        ("policy", {"type": "transaction_logs", "policy": "plain"}),
        ("policy", {"type": "configuration", "policy": "plain"}),
        ("sources", {"type": "transaction_logs", "sources": ["files"]}),
        ("sources", {"type": "transaction_logs", "sources": ["shop-db", "shop-files"]}),
        ("sources", {"type": "configuration", "sources": ["db", "files"]}),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(
    sqlite_catalog: Catalog, clock: FakeClock, tmp_path: Path, field: str, change: dict[str, Any]
) -> None:
    file = loaded(tmp_path)
    schedules = Schedules(sqlite_catalog, clock, policies=lambda: file)
    made = schedules.create(DAILY)
    spec: Any = replace(DAILY, **change)
    attempts: list[Callable[[], object]] = [lambda: schedules.create(spec), lambda: schedules.update(made.id, spec)]
    for attempt in attempts:
        with pytest.raises(InvalidRequest) as told:
            attempt()
        assert told.value.title.startswith(f"{field} ")
        assert told.value.cause
        assert told.value.hint
    assert schedules.get(made.id).version == 1


def test_a_change_counts_and_moves_the_next_time_only_if_it_must(catalog: Catalog, clock: FakeClock) -> None:
    schedules = Schedules(catalog, clock)
    made = schedules.create(DAILY)
    clock.advance(60)
    renamed = schedules.update(made.id, replace(DAILY, name="Nightly"), version=1)
    assert (renamed.name, renamed.version, renamed.next_run_at) == ("Nightly", 2, made.next_run_at)
    assert renamed.updated_at == clock.now()
    with pytest.raises(PreconditionFailed):
        schedules.update(made.id, DAILY, version=1)
    moved = schedules.update(made.id, replace(DAILY, cron="30 3 * * *", timezone="UTC"))
    assert moved.next_run_at == datetime(2026, 1, 1, 3, 30, tzinfo=UTC)
    assert schedules.update(made.id, replace(DAILY, enabled=False)).next_run_at is None
    assert schedules.preview(made.id) == []


def test_one_that_is_deleted_is_gone(catalog: Catalog, clock: FakeClock) -> None:
    schedules = Schedules(catalog, clock)
    made = schedules.create(DAILY)
    with pytest.raises(PreconditionFailed):
        schedules.delete(made.id, version=2)
    schedules.delete(made.id, version=1)
    attempts: list[Callable[[], object]] = [lambda: schedules.get(made.id), lambda: schedules.get("nope")]
    attempts.append(lambda: schedules.delete(made.id))
    for attempt in attempts:
        with pytest.raises(NotFound):
            attempt()


def test_a_change_may_be_part_of_a_transaction(catalog: Catalog, clock: FakeClock) -> None:
    schedules = Schedules(catalog, clock)
    ids: list[str] = []

    def fail() -> None:
        with catalog.session() as session:
            ids.append(schedules.create(DAILY, session=session).id)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(NotFound):
        schedules.get(ids[0])
    with catalog.session() as session:
        made = schedules.create(DAILY, session=session)
        schedules.pause(made.id, session=session)
    assert schedules.get(made.id).next_run_at is None


def test_pages_are_filtered_by_what_somebody_may_see(sqlite_catalog: Catalog, clock: FakeClock) -> None:
    schedules = Schedules(sqlite_catalog, clock)
    names = [f"s{number}" for number in range(5)]
    for number, name in enumerate(names):
        clock.advance(1)
        schedules.create(replace(DAILY, name=name, policy=f"p{number % 2}"))
    clock.advance(1)
    schedules.create(ScheduleSpec(name="gc", type="gc", cron="0 4 * * 0"))

    def shown(limit: int | None = None, cursor: str | None = None, **filters: Any) -> list[str]:
        return [row.name for row in schedules.page(ScheduleFilters(**filters), limit, cursor).items]

    assert shown() == [*names, "gc"]
    assert shown(policy="p1") == ["s1", "s3"]
    assert shown(type="gc") == ["gc"]
    assert shown(scopes=["/policy/p0"]) == ["s0", "s2", "s4"]
    assert shown(scopes=["/repository"]) == ["gc"]
    assert shown(scopes=["/"]) == shown()
    assert shown(scopes=[]) == shown(scopes=["/policy/p0/source/x"]) == []
    first = schedules.page(limit=4)
    assert shown(4, first.next) == ["s4", "gc"]


def test_a_pause_ends_by_itself_and_is_not_made_up_for(catalog: Catalog, clock: FakeClock) -> None:
    schedules = Schedules(catalog, clock)
    made = schedules.create(replace(DAILY, timezone="UTC"))
    until = clock.now() + timedelta(days=3, hours=2)  # at its very end a time comes
    paused = schedules.pause(made.id, until=until, reason="the shop moves")
    assert (paused.next_run_at, paused.paused_reason, paused.version) == (until, "the shop moves", 2)
    assert schedules.preview(made.id, 2) == [until, until + timedelta(days=1)]
    resumed = schedules.resume(made.id)
    assert (resumed.next_run_at, resumed.paused_until, resumed.paused_reason) == (made.next_run_at, None, None)
    assert schedules.pause(made.id).next_run_at is None
    assert schedules.get(made.id).enabled
    with pytest.raises(InvalidRequest, match="until"):
        schedules.pause(made.id, until=clock.now())


# -- the policy file


def of_file(schedules: Schedules) -> dict[str, ScheduleRecord]:
    return {row.name: row for row in schedules.page(ScheduleFilters(origin="file")).items}


def test_a_file_says_schedules(catalog: Catalog, clock: FakeClock, tmp_path: Path) -> None:
    schedules = Schedules(catalog, clock)
    done = schedules.sync_from_policies(loaded(tmp_path))
    rows = of_file(schedules)
    assert {name: (row.cron, row.timezone, row.sources) for name, row in rows.items()} == {
        "shop: full": ("0 0 * * 0", "Europe/Berlin", []),
        "shop: incremental": ("0 */6 * * *", "Europe/Berlin", []),
        "shop: transaction_logs": ("*/15 * * * *", "Europe/Berlin", ["shop-db"]),
        "shop: on_change": ("* * * * *", "Europe/Berlin", ["shop-files"]),
        "shop: verification": ("30 4 * * *", "Europe/Berlin", []),
        "plain: full": ("0 1 * * 0", "Europe/Berlin", []),  # of backup_manager; it has no configuration
    }
    assert done == SyncedSchedules(added=6, changed=0, disabled=0, unchanged=0)
    assert all(row.next_run_at is not None for row in rows.values())


def test_a_file_that_says_the_same_changes_nothing(catalog: Catalog, clock: FakeClock, tmp_path: Path) -> None:
    schedules = Schedules(catalog, clock)
    schedules.sync_from_policies(loaded(tmp_path))
    before = of_file(schedules)
    paused = schedules.pause(before["shop: full"].id, reason="by hand")
    clock.advance(86_400)
    done = schedules.sync_from_policies(loaded(tmp_path))
    assert done == SyncedSchedules(added=0, changed=0, disabled=0, unchanged=6)
    after = of_file(schedules)
    assert {name: row.next_run_at for name, row in after.items() if name != "shop: full"} == {
        name: row.next_run_at for name, row in before.items() if name != "shop: full"
    }
    assert (after["shop: full"].version, after["shop: full"].paused_reason) == (paused.version, "by hand")


def test_what_the_file_no_longer_says_is_disabled_and_comes_back(
    catalog: Catalog, clock: FakeClock, tmp_path: Path
) -> None:
    schedules = Schedules(catalog, clock)
    schedules.sync_from_policies(loaded(tmp_path))
    without = SHOP.replace('      incremental: "0 */6 * * *"\n', "").replace('"30 4 * * *"', '"45 4 * * *"')
    done = schedules.sync_from_policies(loaded(tmp_path, without))
    assert done == SyncedSchedules(added=0, changed=1, disabled=1, unchanged=4)
    gone = of_file(schedules)["shop: incremental"]
    assert (gone.enabled, gone.next_run_at, gone.last_missed) == (False, None, "the policy file no longer has it")
    assert schedules.sync_from_policies(None).disabled == 5
    assert schedules.sync_from_policies(loaded(tmp_path)).changed == 6
    back = of_file(schedules)["shop: incremental"]
    assert back.enabled
    assert back.next_run_at is not None


def test_what_the_file_says_is_changed_there_alone(sqlite_catalog: Catalog, clock: FakeClock, tmp_path: Path) -> None:
    schedules = Schedules(sqlite_catalog, clock)
    schedules.sync_from_policies(loaded(tmp_path))
    row = of_file(schedules)["shop: full"]
    attempts: list[Callable[[], object]] = [lambda: schedules.update(row.id, DAILY), lambda: schedules.delete(row.id)]
    for attempt in attempts:
        with pytest.raises(InvalidRequest, match="policy file"):
            attempt()


def test_several_hosts_may_read_the_file_at_once(catalog: Catalog, clock: FakeClock, tmp_path: Path) -> None:
    file = loaded(tmp_path)
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda _: Schedules(catalog, clock).sync_from_policies(file), range(4)))
    assert sorted(one.added for one in done) == [0, 0, 0, 6]
