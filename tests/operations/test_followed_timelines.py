"""A name follows the timeline of its own server, whatever copies of it archive into the same repository."""

from __future__ import annotations

from datetime import UTC, timedelta
from pathlib import Path

import pytest

from backstay.errors import TargetNotCovered
from backstay.operations.clusters.plan import RecoveryTarget, plan_recovery
from backstay.operations.clusters.status import pg_status
from backstay.operations.retention.prune import execute_prune, plan_prune
from backstay.operations.retention.rules import RetentionRules
from backstay.repository.repository import Environment, Repository
from backstay.storage.memory import MemoryStorage
from backstay.testing import FakeClock
from backstay.trust.secrets import Secret
from tests.operations.bases import NAME, make_base, store_wal, wal_file
from tests.operations.copies import make_source
from tests.postgres.made_wal import DAY, SYSTEM, segment

COPY = "clone"
FORK = b"1\t0/400000\tbefore\n"
LATEST = RecoveryTarget()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(DAY)


@pytest.fixture
def repository(clock: FakeClock, tmp_path: Path) -> Repository:
    environment = Environment(clock=clock, threads=2)
    return Repository.create(MemoryStorage(clock=clock), Secret.new_keyfile(), environment=environment)


class Servers:
    """One of timeline 1, and a copy that left it with segment 4 and is on timeline 2; base backups are a day apart."""

    def __init__(self, repository: Repository, source: Path, clock: FakeClock) -> None:
        self._repository, self._source, self._clock = repository, source, clock

    def write(self, *numbers: int, timeline: int = 1) -> None:
        if timeline == 2:
            self._repository.wal.store(SYSTEM, "00000002.history", FORK)
        store_wal(self._repository, numbers, timeline=timeline, begun=self._clock.now())

    def back_up(self, number: int, name: str = NAME, timeline: int = 1) -> str:
        self._clock.advance(86_400)
        now = self._clock.now()
        return make_base(self._repository, self._source, number, name=name, timeline=timeline, stop_time=now)

    def prune(self, keep: int, window: timedelta | None = None) -> set[str]:
        """What is left of the base backups."""
        rules = RetentionRules(keep_last=keep)
        plan = plan_prune(self._repository, rules, now=self._clock.now(), zone=UTC, wal_window=window)
        execute_prune(self._repository, plan)
        return {decision.candidate.id for decision in plan.kept}

    def restored(self, name: str = NAME) -> int:
        """The timeline of a restore for which nobody names one."""
        return plan_recovery(self._repository, name, "latest", LATEST).path.timeline

    def problems(self, name: str = NAME) -> list[str]:
        return [told for told in pg_status(self._repository, name).problems if "timeline" in told]

    def wal(self, timeline: int) -> list[str]:
        return [file for file in self._repository.wal.files(SYSTEM) if file.startswith(f"{timeline:08X}0")]


@pytest.fixture
def servers(repository: Repository, tmp_path: Path, clock: FakeClock) -> Servers:
    return Servers(repository, make_source(tmp_path / "source", files=1), clock)


def test_a_copy_with_a_name_of_its_own_changes_nothing_for_the_other_name(servers: Servers) -> None:
    servers.write(*range(1, 12))
    servers.back_up(6)
    servers.write(4, 5, 6, 7, timeline=2)
    servers.back_up(6, COPY, timeline=2)
    servers.write(8, 9, timeline=2)
    assert (servers.restored(), servers.problems()) == (1, [])
    assert (servers.restored(COPY), servers.problems(COPY)) == (2, [])


def test_status_looks_for_gaps_on_the_timeline_of_the_own_server(repository: Repository, servers: Servers) -> None:
    servers.write(*range(1, 8))
    servers.back_up(6)
    servers.write(4, 5, timeline=2)
    servers.back_up(5, COPY, timeline=2)
    servers.write(7, 8, timeline=2)
    found = pg_status(repository, NAME)
    assert (found.timeline, found.gaps, found.problems) == (1, (), ())
    assert pg_status(repository, COPY).gaps


def test_a_copy_that_archived_once_is_passed_over_after_the_next_base_backup(
    repository: Repository, servers: Servers
) -> None:
    servers.write(*range(1, 7))
    servers.back_up(6)
    servers.write(4, 5, timeline=2)
    with pytest.raises(TargetNotCovered, match="leads to timeline 2"):
        servers.restored()
    assert servers.problems()
    servers.write(7, 8)
    servers.back_up(8)
    servers.write(9)
    assert (servers.restored(), servers.problems()) == (1, [])
    moment = repository.clock.now() + timedelta(minutes=8)
    assert plan_recovery(repository, NAME, "latest", RecoveryTarget(kind="time", time=moment)).path.timeline == 1


def test_a_copy_that_archived_once_keeps_no_base_backup(servers: Servers) -> None:
    servers.write(*range(1, 7))
    servers.back_up(2)
    servers.write(4, 5, timeline=2)
    assert (servers.restored(), servers.problems()) == (2, [])
    servers.back_up(6)
    assert servers.restored() == 1  # though the first base backup leads to timeline 2
    servers.write(7, 8)
    newest = servers.back_up(8)
    assert servers.prune(1) == {newest}
    assert servers.wal(1) == [wal_file(8)]


@pytest.mark.parametrize("window", [None, timedelta(days=1), timedelta(days=30)])
def test_a_copy_with_a_name_of_its_own_does_not_keep_the_base_backup_from_which_it_came(
    servers: Servers, window: timedelta | None
) -> None:
    servers.write(*range(1, 6))
    servers.back_up(2)
    made = []
    for number in range(6, 10):
        servers.write(number)
        servers.write(*([4, 5, 6] if number == 6 else [number]), timeline=2)
        made.append({servers.back_up(number), servers.back_up(number, COPY, timeline=2)})
    servers.write(10, timeline=2)
    assert servers.prune(4, window) == made[-2] | made[-1]
    assert servers.wal(1) == [wal_file(8), wal_file(9)]
    assert servers.wal(2) == [wal_file(number, 2) for number in (8, 9, 10)]


def test_a_copy_that_was_backed_up_before_it_was_promoted_does_not_keep_that_base_backup(servers: Servers) -> None:
    servers.write(*range(1, 6))
    standby = servers.back_up(2, COPY)
    servers.write(4, 5, 6, timeline=2)
    servers.back_up(5, COPY, timeline=2)
    servers.write(6, 7)
    newest = servers.back_up(6)
    servers.write(8)
    assert standby not in servers.prune(2, timedelta(days=30))
    assert newest in servers.prune(2, timedelta(days=30))


def test_wal_before_the_first_base_backup_of_a_copy_stays_within_the_window(servers: Servers) -> None:
    servers.write(*range(1, 6))
    first = servers.back_up(2)
    servers.write(4, 5, 6, timeline=2)
    servers.back_up(6, COPY, timeline=2)
    servers.back_up(5)
    assert first in servers.prune(3, timedelta(days=3))
    assert wal_file(4, 2) in servers.wal(2)
    servers.back_up(6, COPY, timeline=2)
    servers.prune(4, timedelta(hours=30))
    assert wal_file(4, 2) not in servers.wal(2)


def test_another_name_of_the_same_server_excuses_nothing_before_it_is_there(servers: Servers) -> None:
    """After a recovery the older base backup of the one name leads to the new timeline, none of the other does."""
    servers.write(*range(1, 7))
    servers.back_up(2, "nightly")
    servers.back_up(6)
    servers.write(4, 5, timeline=2)
    with pytest.raises(TargetNotCovered, match="leads to timeline 2"):
        servers.restored()
    assert servers.problems()
    assert (servers.restored("nightly"), servers.problems("nightly")) == (2, [])


def test_a_timeline_without_a_commit_may_have_begun_a_moment_ago(repository: Repository, servers: Servers) -> None:
    servers.write(*range(1, 7))
    first, last = servers.back_up(2), servers.back_up(6)
    repository.wal.store(SYSTEM, "00000002.history", FORK)
    repository.wal.store(SYSTEM, wal_file(4, 2), segment(4))
    assert servers.restored() == 2
    assert servers.prune(1) == {first, last}
