"""`prune` removes WAL with the base backups that needed it, and never what may still be needed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backstay.core.events import Event, Warned
from backstay.errors import HoldViolation, InvalidRequest, NotFound, TargetNotCovered
from backstay.operations.clusters.plan import RecoveryTarget, plan_recovery
from backstay.operations.clusters.status import pg_status
from backstay.operations.retention.holds import set_hold
from backstay.operations.retention.prune import PrunePlan, execute_prune, plan_prune
from backstay.operations.retention.rules import RetentionRules
from backstay.operations.wal.expire import expire_wal, plan_abandonment, plan_expiry
from backstay.repository.format import wal_name
from backstay.repository.readers import announced, running_readers
from backstay.repository.repository import Environment, Repository
from backstay.repository.sessions.session import LEASE, Process
from backstay.repository.wal.slices import slice_name
from backstay.storage.memory import MemoryStorage
from backstay.testing import FakeClock, Fault, FaultyBackend
from backstay.trust.secrets import Secret
from tests.operations.bases import NAME, make_base, store_wal, wal_file
from tests.operations.copies import back_up, make_source
from tests.postgres.made_wal import DAY, SYSTEM, commit, segment

LAST = RetentionRules(keep_last=1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(DAY)


@pytest.fixture
def store(clock: FakeClock) -> MemoryStorage:
    return MemoryStorage(clock=clock)


@pytest.fixture
def repository(store: MemoryStorage, clock: FakeClock, tmp_path: Path) -> Repository:
    environment = Environment(clock=clock, threads=2)
    return Repository.create(store, Secret.new_keyfile(), environment=environment)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source", files=3)


def plan(repository: Repository, rules: RetentionRules = LAST, window: timedelta | None = None) -> PrunePlan:
    return plan_prune(repository, rules, now=repository.clock.now(), zone=UTC, wal_window=window)


def stored(repository: Repository) -> list[str]:
    return list(repository.wal.files(SYSTEM))


def store_commit(repository: Repository, number: int, moment: datetime) -> None:
    repository.wal.store(SYSTEM, wal_file(number), segment(number, [commit(number, moment)]))


def two_of_files(repository: Repository, source: Path, clock: FakeClock) -> list[str]:
    """Snapshots that have nothing to do with a database, the older one first."""
    made = []
    for _ in range(2):
        clock.advance(60)
        made.append(back_up(repository, source))
    return made


def days(repository: Repository, source: Path, clock: FakeClock, *numbers: int) -> list[str]:
    """Base backups a day apart, with all WAL up to the last one and one segment more."""
    store_wal(repository, range(1, max(numbers) + 2))
    made = []
    for number in numbers:
        clock.advance(86_400)
        made.append(make_base(repository, source, number, stop_time=clock.now()))
    return made


def test_wal_goes_with_the_base_backups_that_needed_it(repository: Repository, source: Path, clock: FakeClock) -> None:
    first, second = days(repository, source, clock, 3, 6)
    found = plan(repository)
    assert [decision.candidate.id for decision in found.dropped] == [first]
    (wal,) = found.wal
    assert (wal.names, wal.since, wal.kept) == ((NAME,), second, 2)
    assert wal.expired == tuple(map(wal_file, range(1, 6)))
    assert stored(repository) == [wal_file(number) for number in range(1, 8)]  # a plan changes nothing
    execute_prune(repository, found)
    assert stored(repository) == [wal_file(6), wal_file(7)]
    assert plan(repository).wal[0].expired == ()


def test_a_hold_covers_the_wal_of_its_base_backup(repository: Repository, source: Path, clock: FakeClock) -> None:
    held, _, _ = days(repository, source, clock, 2, 5, 8)
    set_hold(repository, repository.snapshots.get(held), "lawsuit")
    execute_prune(repository, plan(repository))
    assert stored(repository) == [wal_file(number) for number in range(2, 10)]
    clock.advance(7200)
    execute_prune(repository, plan(repository, window=timedelta(hours=1)))
    assert stored(repository) == [wal_file(2), wal_file(8), wal_file(9)]


def test_a_hold_that_comes_after_the_plan_stops_it_before_its_wal_goes(
    repository: Repository, source: Path, clock: FakeClock
) -> None:
    first, _ = days(repository, source, clock, 3, 6)
    found = plan(repository)
    set_hold(repository, repository.snapshots.get(first), "lawsuit")
    with pytest.raises(HoldViolation):
        execute_prune(repository, found)
    assert wal_file(3) in stored(repository)


def test_the_newest_base_backup_of_each_name_stays(repository: Repository, source: Path, clock: FakeClock) -> None:
    days(repository, source, clock, 2)
    other = make_base(repository, source, 2, name="nightly", stop_time=clock.now())
    newest = days(repository, source, clock, 5)[0]
    found = plan(repository)
    kept = {decision.candidate.id: decision.reasons for decision in found.kept}
    assert kept.keys() == {other, newest}
    assert kept[other] == ("newest base backup of nightly",)
    assert found.wal[0].since == other


def test_wal_without_a_base_backup_waits_until_it_is_given_up(
    repository: Repository, source: Path, clock: FakeClock
) -> None:
    (only,) = days(repository, source, clock, 3)
    with pytest.raises(InvalidRequest, match="in use"):
        plan_abandonment(repository, NAME)
    repository.snapshots.drop(only, "by hand", repository.clock)
    (wal,) = plan(repository).wal
    assert (wal.names, wal.since, wal.expired, wal.kept) == ((NAME,), None, (), 4)
    with pytest.raises(NotFound):
        plan_expiry(repository, NAME)
    with pytest.raises(NotFound):
        plan_abandonment(repository, "nobody")
    assert expire_wal(repository, plan_abandonment(repository, NAME)).removed == 4
    assert stored(repository) == []


def test_the_log_of_another_kind_of_database_is_left_alone(
    repository: Repository, source: Path, clock: FakeClock
) -> None:
    days(repository, source, clock, 3)
    repository.wal.bind("shop", 8, repository.clock)
    slices = [slice_name("dbs-binlog.000001", 0), slice_name("binlog.000001", 0)]
    assert len(slices[0]) == len(wal_file(1))
    for name in slices:
        repository.wal.store(8, name, b"events")
    assert [wal.names for wal in plan(repository, window=timedelta(0)).wal] == [(NAME,)]
    with pytest.raises(NotFound, match="no WAL of shop"):
        plan_abandonment(repository, "shop")
    assert len(repository.wal.files(8)) == 2


def test_a_timeline_newer_than_all_base_backups_waits_for_its_own(
    repository: Repository, source: Path, clock: FakeClock
) -> None:
    """After a recovery to a point before the last base backup, its WAL lies before that of the base backup."""
    days(repository, source, clock, 9)
    repository.wal.store(SYSTEM, "00000002.history", b"1\t0/400000\tbefore\n")
    store_wal(repository, [4, 5], timeline=2)
    assert expire_wal(repository, plan_expiry(repository, NAME)).removed == 8
    assert wal_file(4, 2) in stored(repository)
    make_base(repository, source, 5, timeline=2, stop_time=clock.now())
    assert wal_file(4, 2) in plan_expiry(repository, NAME).expired


FORK = b"1\t0/400000\tbefore\n"
HOUR = timedelta(hours=1)


@pytest.fixture
def recovered(repository: Repository, source: Path, clock: FakeClock) -> list[str]:
    """A server that was recovered to before its second base backup, and goes on with segment 4; its base backups."""
    store_wal(repository, range(1, 9))
    made = []
    for number in (2, 6):
        clock.advance(86_400)
        made.append(make_base(repository, source, number, stop_time=clock.now()))
    repository.wal.store(SYSTEM, "00000002.history", FORK)
    store_wal(repository, range(4, 10), timeline=2, begun=clock.now())
    clock.advance(86_400)
    return made


def test_a_base_backup_that_does_not_lead_to_the_newest_timeline_does_not_end_its_wal(
    repository: Repository, recovered: list[str]
) -> None:
    found = plan_expiry(repository, NAME, window=HOUR)
    assert (found.since, found.expired) == (recovered[0], (wal_file(1),))
    assert [(needed.timeline, needed.since) for needed in found.timelines] == [(2, recovered[0])]


def test_prune_spares_the_newest_base_backup_that_leads_to_the_newest_timeline(
    repository: Repository, source: Path, clock: FakeClock, recovered: list[str]
) -> None:
    found = plan(repository)
    kept = {decision.candidate.id: decision.reasons for decision in found.kept}
    assert kept[recovered[0]] == (f"newest base backup of {NAME} on the way to timeline 2",)
    assert kept.keys() == {*recovered}
    assert found.wal[0].expired == (wal_file(1),)
    newest = make_base(repository, source, 8, timeline=2, stop_time=clock.now())
    assert [decision.candidate.id for decision in plan(repository).kept] == [newest]


def test_prune_spares_a_base_backup_of_a_timeline_that_was_left_while_it_has_commits_in_the_window(
    repository: Repository, source: Path, clock: FakeClock, recovered: list[str]
) -> None:
    newest = make_base(repository, source, 8, timeline=2, stop_time=clock.now())
    store_commit(repository, 9, clock.now())
    kept = {decision.candidate.id for decision in plan(repository, window=HOUR).kept}
    assert kept == {recovered[1], newest}
    clock.advance(7200)
    assert [decision.candidate.id for decision in plan(repository, window=HOUR).kept] == [newest]


def test_a_timeline_that_no_base_backup_leads_to_is_told_and_not_passed_over(
    repository: Repository, store: MemoryStorage, recovered: list[str]
) -> None:
    latest = RecoveryTarget()
    assert plan_recovery(repository, NAME, "latest", latest).base.snapshot == recovered[0]
    assert not [problem for problem in pg_status(repository, NAME).problems if "timeline" in problem]
    repository.snapshots.drop(recovered[0], "by hand", repository.clock)
    assert "no base backup leads to timeline 2, the newest: make one with `backstay pg backup`" in (
        pg_status(repository, NAME).problems
    )
    for target in (latest, RecoveryTarget(kind="immediate")):
        with pytest.raises(TargetNotCovered, match="leads to timeline 2") as caught:
            plan_recovery(repository, NAME, "latest", target)
        assert "--timeline 1" in caught.value.hint
    assert plan_recovery(repository, NAME, "latest", RecoveryTarget(timeline=1)).path.timeline == 1
    assert plan_recovery(repository, NAME, recovered[1], latest).path.timeline == 1
    store.delete(wal_name(SYSTEM, "00000002.history"))
    with pytest.raises(TargetNotCovered, match=r"00000002\.history, is not stored"):
        plan_recovery(repository, NAME, "latest", latest)


def test_the_way_to_a_base_backup_within_the_window_stays_over_a_fork(
    repository: Repository, source: Path, clock: FakeClock, recovered: list[str]
) -> None:
    newest = make_base(repository, source, 8, timeline=2, stop_time=clock.now())
    assert plan_expiry(repository, NAME, window=HOUR).expired == (wal_file(1),)
    clock.advance(7200)
    found = plan_expiry(repository, NAME, window=HOUR)
    assert found.since == newest
    assert {*found.expired} == {*map(wal_file, (1, 3, 4, 5, 7)), *(wal_file(number, 2) for number in (4, 5, 7))}


def test_a_timeline_that_was_left_keeps_its_wal_while_it_has_commits_in_the_window(
    repository: Repository, source: Path, clock: FakeClock, recovered: list[str]
) -> None:
    make_base(repository, source, 8, timeline=2, stop_time=clock.now())
    clock.advance(7200)
    store_commit(repository, 9, clock.now())
    found = plan_expiry(repository, NAME, window=HOUR)
    assert {needed.timeline: needed.since for needed in found.timelines}[1] == recovered[1]
    assert not {wal_file(7), wal_file(8), wal_file(9)} & {*found.expired}
    clock.advance(7200)
    assert wal_file(7) in plan_expiry(repository, NAME, window=HOUR).expired


def test_where_a_commit_cannot_be_read_its_timeline_counts(
    repository: Repository, store: MemoryStorage, source: Path, clock: FakeClock, recovered: list[str]
) -> None:
    make_base(repository, source, 8, timeline=2, stop_time=clock.now())
    clock.advance(7200)
    store.store(wal_name(SYSTEM, wal_file(8)), b"damaged", overwrite=True)
    assert wal_file(7) not in plan_expiry(repository, NAME, window=HOUR).expired


def test_nothing_lies_outside_of_the_window_while_a_history_is_missing(
    repository: Repository, store: MemoryStorage, source: Path, clock: FakeClock, recovered: list[str]
) -> None:
    store.delete(wal_name(SYSTEM, "00000002.history"))
    assert plan_expiry(repository, NAME, window=HOUR).expired == (wal_file(1),)
    make_base(repository, source, 8, timeline=2, stop_time=clock.now())
    assert wal_file(3) not in plan_expiry(repository, NAME, window=HOUR).expired
    clock.advance(7200)
    assert wal_file(3) in plan_expiry(repository, NAME, window=HOUR).expired


@pytest.mark.parametrize("window", [None, HOUR])
def test_a_damaged_history_keeps_all_of_its_cluster_and_stops_nothing_else(
    repository: Repository,
    store: MemoryStorage,
    source: Path,
    clock: FakeClock,
    recovered: list[str],
    window: timedelta | None,
) -> None:
    newest = make_base(repository, source, 8, timeline=2, stop_time=clock.now())
    other = SYSTEM + 1
    store_wal(repository, range(1, 7), system=other)
    for number in (2, 5):
        clock.advance(86_400)
        make_base(repository, source, number, name="shop", system=other, stop_time=clock.now())
    files = two_of_files(repository, source, clock)
    store.store(wal_name(SYSTEM, "00000002.history"), b"damaged", overwrite=True)
    heard: list[Event] = []
    found = plan_prune(repository, LAST, now=clock.now(), zone=UTC, wal_window=window, events=heard.append)
    reasons = {decision.candidate.id: decision.reasons for decision in found.kept}
    assert all("it cannot be told whether it is needed" in reasons[base][-1] for base in [*recovered, newest])
    assert files[0] in {decision.candidate.id for decision in found.dropped}
    told = [event.message for event in heard if isinstance(event, Warned)]
    assert [text.partition(",")[0] for text in told] == [
        f"all base backups of {NAME} stay",
        f"no WAL of {NAME} is removed",
    ]
    wal = {plan.system: plan for plan in found.wal}
    assert (wal[SYSTEM].expired, wal[SYSTEM].kept, wal[SYSTEM].since) == ((), 14, None)
    assert wal[SYSTEM].doubt
    assert wal[other].expired
    assert execute_prune(repository, found).wal[0].removed == 0
    assert len(stored(repository)) == 15
    assert plan_expiry(repository, NAME, window=window, events=heard.append) == wal[SYSTEM]
    assert len(heard) == 3


def test_a_damaged_history_is_told_only_where_base_backups_of_its_cluster_are_decided_about(
    repository: Repository, store: MemoryStorage, source: Path, clock: FakeClock, recovered: list[str]
) -> None:
    store.store(wal_name(SYSTEM, "00000002.history"), b"damaged", overwrite=True)
    files = two_of_files(repository, source, clock)
    heard: list[Event] = []
    now = repository.clock.now()
    found = plan_prune(repository, LAST, now=now, zone=UTC, only=files, events=heard.append)
    assert ([decision.candidate.id for decision in found.dropped], heard) == (files[:1], [])


def test_nothing_is_removed_under_a_restore(repository: Repository, source: Path, clock: FakeClock) -> None:
    days(repository, source, clock, 3, 6)
    with announced(repository, warn=pytest.fail):
        result = execute_prune(repository, plan(repository))
        assert result.wal[0].removed == 0
        assert "process" in result.wal[0].waiting_for[0]
        assert wal_file(1) in stored(repository)
    assert execute_prune(repository, plan(repository)).wal[0].removed == 5


def test_a_restore_that_died_is_waited_for_no_longer_than_the_lease(
    repository: Repository, store: MemoryStorage, clock: FakeClock
) -> None:
    elsewhere = Environment(clock=clock, process=Process("other/id", "boot", "", 7, "1"))
    other = Repository(
        store,
        repository.header,
        repository.keyring,
        cache=None,
        environment=elsewhere,
        compressor=repository.compressor,
    )
    killed = announced(other, warn=pytest.fail)  # kept, or it would end like any other
    killed.__enter__()
    assert [str(reader) for reader in running_readers(repository)] == ["process 7 on other"]
    clock.advance(LEASE.total_seconds() + 1)
    assert running_readers(repository) == []
    assert not list(store.list("readers/"))


def test_a_restore_that_may_not_write_is_told_and_goes_on(repository: Repository, store: MemoryStorage) -> None:
    broken = FaultyBackend(store)
    broken.script(Fault(kind="error_before", operation="store", prefix="readers/"))
    told: list[str] = []
    with announced(repository.in_store(broken), warn=told.append):
        assert len(told) == 1
        assert "nobody is kept from removing WAL" in told[0]
