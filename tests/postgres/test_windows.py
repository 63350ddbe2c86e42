"""What stored WAL makes reachable: windows, their gaps, and the way along timelines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from backstay.cli.context import Context
from backstay.cli.moments import zoned_moment
from backstay.cli.pg import _show_windows
from backstay.cli.signals import Interrupts
from backstay.errors import (
    CorruptedBackup,
    IdentityMismatch,
    ObjectNotFound,
    TargetAmbiguousTimeline,
    TargetNotCovered,
    WalGap,
)
from backstay.operations.clusters.plan import RecoveryPlan, RecoveryTarget, _Planner, plan_recovery
from backstay.operations.wal.bases import Base
from backstay.operations.wal.coverage import Gap, WalCoverage, run_with
from backstay.operations.wal.windows import Window, windows
from backstay.repository.repository import Repository
from backstay.repository.wal.store import StoredFile
from backstay.sources.postgres.lsn import segment_name
from backstay.sources.postgres.timelines import Stretch, path_of
from backstay.sources.postgres.wal_records import Commit, RestorePoint
from backstay.storage.memory import MemoryStorage
from backstay.testing import FakeClock
from backstay.trust.secrets import Secret
from tests.postgres.made_wal import SIZE, SYSTEM, abort, at, commit, restore_point, segment
from tests.postgres.receivers import Archive, ThreadedReceiver, add_base, system_of, until_stored
from tests.postgres.servers import Server


@pytest.fixture
def repository() -> Iterator[Repository]:
    with Repository.create(MemoryStorage(), Secret.new_keyfile()) as made:
        yield made


def put(repository: Repository, number: int, *commits: bytes, timeline: int = 1, part: int | None = None) -> None:
    """Store a made segment, whole or its first bytes."""
    file, data = segment_name(timeline, number * SIZE, SIZE), segment(number, commits)
    if part is None:
        repository.wal.store(SYSTEM, file, data)
    else:
        repository.wal.store_part(SYSTEM, file, 0, data[:part])


def base(number: float, minutes: float, *, timeline: int = 1, snapshot: str = "base") -> Base:
    """A base backup that began at the start of a segment, and ended 1000 bytes behind it."""
    return Base(
        snapshot=snapshot,
        name="main",
        system=SYSTEM,
        timeline=timeline,
        start_lsn=int(number * SIZE),
        stop_lsn=int(number * SIZE) + 1000,
        stop_time=at(minutes),
    )


def told(repository: Repository, *bases: Base) -> list[Window]:
    return windows(WalCoverage.load(repository.wal, SYSTEM), list(bases))


def test_where_a_clock_was_ahead_the_plan_stops_as_the_server_will(repository: Repository) -> None:
    for number, minutes in enumerate((3.1, 90, 5, 6, 20), start=3):
        put(repository, number, commit(700 + number, at(minutes)))
    coverage, target = WalCoverage.load(repository.wal, SYSTEM), RecoveryTarget(kind="time", time=at(10))
    planned = _Planner(coverage, "main", [replace(base(3, 3), segment_size=SIZE)], target).run()
    assert planned.last_commit == at(3.1)
    assert planned.end_lsn // SIZE == 4  # the first commit that is later than the target


def test_restore_points_of_the_same_name_behind_the_one_that_is_taken_are_told(repository: Repository) -> None:
    for number in (3, 4, 5):
        put(
            repository, number, commit(number, at(number)), restore_point("done", at(number)), restore_point("x", at(9))
        )
    coverage = WalCoverage.load(repository.wal, SYSTEM)
    bases = [replace(base(3, 3), segment_size=SIZE), replace(base(3.5, 3.5), segment_size=SIZE)]
    planned = _Planner(coverage, "main", bases, RecoveryTarget(kind="name", name="done")).run()
    assert planned.end_lsn // SIZE == 4
    assert [point.time for point in planned.same_name] == [at(5)]
    assert _Planner(coverage, "main", bases, RecoveryTarget(kind="xid", xid=4)).run().same_name == ()


def test_a_transaction_that_was_rolled_back_is_told_as_such(repository: Repository) -> None:
    for number in range(3, 6):
        put(repository, number, commit(number, at(number)), abort(80 + number, at(number)), commit(90, at(number)))
    coverage = WalCoverage.load(repository.wal, SYSTEM)
    bases = [replace(base(3, 3), segment_size=SIZE), replace(base(4.5, 4.5), segment_size=SIZE)]

    def refused(xid: int) -> TargetNotCovered:
        with pytest.raises(TargetNotCovered) as caught:
            _Planner(coverage, "main", bases, RecoveryTarget(kind="xid", xid=xid)).run()
        return caught.value

    for xid in (84, 85):  # whether it lies behind the newest base backup or an older one
        assert "was aborted" in str(refused(xid))
        assert str(at(xid - 80)) in refused(xid).cause
    assert "not covered" in str(refused(777))


def test_a_window_reaches_from_its_base_to_the_last_commit(repository: Repository) -> None:
    for number in range(3, 6):
        put(repository, number, commit(700 + number, at(number)), commit(800 + number, at(number + 0.5)))
    put(repository, 6, part=4096)
    (window,) = told(repository, base(3, 3.2))
    assert (window.start_time, window.end_time) == (at(3.2), at(5.5))
    assert (window.start_lsn, window.end_lsn) == (3 * SIZE + 1000, 6 * SIZE + 4096)
    assert window.gaps == ()
    assert told(repository) == []
    (late,) = told(repository, base(5, 9))
    assert late.end_time == at(9)  # nothing was committed since: the base itself can be restored


def test_the_ends_of_a_window_are_printed_as_times_that_a_recovery_takes(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = (at(9.00001), at(9.5))
    put(repository, 5, commit(700, at(9)))
    put(repository, 6, commit(701, ends[1]))
    found = told(repository, base(5, 9.00001))
    context = Context({}, clock := FakeClock(), Interrupts(clock))
    _show_windows(context, found)
    first, last = (line.split() for line in capsys.readouterr().out.splitlines()[1:])
    assert first[:4] == ["main", "1", "1", "from"]
    printed = (" ".join(first[4:6]), " ".join(last[1:3]))
    assert tuple(zoned_moment(context, text) for text in printed) == ends


def test_a_missing_segment_cuts_a_window_and_is_told(repository: Repository) -> None:
    for number in (3, 4, 7, 8, 10):
        put(repository, number, commit(number, at(number)))
    first, second = told(repository, base(3, 3.5, snapshot="old"), base(7, 7.5, snapshot="new"))
    assert (first.end_time, first.end_lsn) == (at(4), 5 * SIZE)
    assert first.gaps == (Gap(from_lsn=5 * SIZE, to_lsn=7 * SIZE, segments=2),)
    assert (second.snapshots, second.end_lsn) == (("new",), 9 * SIZE)
    assert second.gaps == (Gap(from_lsn=9 * SIZE, to_lsn=10 * SIZE, segments=1),)
    (alone,) = told(repository, base(3, 3.5))
    assert [gap.segments for gap in alone.gaps] == [2, 1]


def test_a_segment_that_is_not_whole_before_others_is_a_gap(repository: Repository) -> None:
    put(repository, 3, commit(1, at(3)))
    put(repository, 4, commit(2, at(4)), part=8192)
    put(repository, 5, commit(3, at(5)))
    (window,) = told(repository, base(3, 3))
    assert window.end_lsn == 4 * SIZE + 8192
    assert window.gaps == (Gap(from_lsn=4 * SIZE + 8192, to_lsn=5 * SIZE, segments=1),)
    assert window.end_time == at(4)


def test_a_base_without_its_wal_can_not_be_restored(repository: Repository) -> None:
    put(repository, 9, commit(1, at(9)))
    (window,) = told(repository, base(3, 3))
    assert window.end_time is None
    assert window.gaps == (Gap(from_lsn=3 * SIZE, to_lsn=9 * SIZE, segments=6),)
    put(repository, 3, part=500)
    (window,) = told(repository, base(3, 3))
    assert (window.end_time, window.end_lsn) == (None, 3 * SIZE + 500)


def test_windows_follow_timelines(repository: Repository) -> None:
    fork = 5 * SIZE + 3000
    put(repository, 3, commit(1, at(3)))
    put(repository, 4, commit(2, at(4)))
    put(repository, 5, commit(3, at(5)), part=3000)
    put(repository, 5, commit(3, at(5)), commit(4, at(5.5)), timeline=2)
    put(repository, 6, commit(5, at(6)), timeline=2)
    one, other = told(repository, base(3, 3)), base(6, 6.5, timeline=2)
    assert [window.timeline for window in one] == [1]  # nobody knows yet from where timeline 2 came
    history = f"1\t0/{fork:X}\tno recovery target specified\n".encode()
    repository.wal.store(SYSTEM, "00000002.history", history)
    first, second = told(repository, base(3, 3))
    assert (first.timeline, first.end_lsn, first.end_time) == (1, fork, at(5))
    assert (second.timeline, second.end_lsn, second.end_time) == (2, 7 * SIZE, at(6))
    assert not first.gaps
    assert not second.gaps
    both = told(repository, base(3, 3), other)
    assert [len(window.snapshots) for window in both] == [1, 2]
    coverage = WalCoverage.load(repository.wal, SYSTEM)
    names = [coverage.file(coverage.path(2), number) for number in coverage.numbers(coverage.path(2))]
    assert [name[:8] for name in names] == ["00000001", "00000001", "00000002", "00000002"]


def test_a_base_behind_the_fork_leads_only_to_its_own_timeline(repository: Repository) -> None:
    for number in range(3, 9):
        put(repository, number, commit(number, at(number)))
    put(repository, 4, commit(1, at(4)), timeline=2)
    repository.wal.store(SYSTEM, "00000002.history", f"1\t0/{4 * SIZE + 100:X}\tx\n".encode())
    found = told(repository, base(6, 6))
    assert [window.timeline for window in found] == [1]


@pytest.mark.parametrize(
    "target", [RecoveryTarget(kind="xid", xid=7), RecoveryTarget(kind="name", name="done")], ids=["xid", "name"]
)
def test_an_event_that_two_timelines_have_behind_their_fork_is_ambiguous(
    repository: Repository, target: RecoveryTarget
) -> None:
    """The numbers of transactions go on from the fork on both, and names are anybody's."""
    history = f"1\t0/{4 * SIZE:X}\tno recovery target specified\n".encode()
    repository.wal.store(SYSTEM, "00000002.history", history)
    put(repository, 2)
    put(repository, 3, commit(1, at(3)), restore_point("shared", at(3)))
    put(repository, 4, commit(8, at(4)), timeline=2)
    put(repository, 5, commit(7, at(5)), restore_point("done", at(5)), timeline=2)
    put(repository, 4, commit(5, at(4)))

    def plan(wanted: RecoveryTarget) -> RecoveryPlan:
        return _Planner(
            WalCoverage.load(repository.wal, SYSTEM), "main", [replace(base(2, 2), segment_size=SIZE)], wanted
        ).run()

    assert plan(target).path.timeline == 2  # the first timeline has no such event
    put(repository, 6, commit(7, at(6)), restore_point("done", at(6)))  # behind a hole: another base may lead there
    with pytest.raises(TargetAmbiguousTimeline, match="timeline 2 and on timeline 1"):
        plan(target)
    assert plan(replace(target, timeline=2)).path.timeline == 2
    for shared in (RecoveryTarget(kind="xid", xid=1), RecoveryTarget(kind="name", name="shared")):
        assert plan(shared).end_lsn < 4 * SIZE


def test_the_segment_of_a_moment_is_found(repository: Repository) -> None:
    for number in range(3, 40):
        busy = number % 7 not in (0, 1, 2)
        put(repository, number, *([commit(number, at(number)), commit(99, at(number + 0.5))] if busy else []))
    coverage = WalCoverage.load(repository.wal, SYSTEM)
    path = coverage.path(1)
    run = run_with(coverage.runs(path), 3 * SIZE)
    assert run is not None

    def find(moment: datetime, after: int = 3 * SIZE) -> int | None:
        return coverage.find_segment_for_time(path, run, moment, after)

    commits = {number: at(number + 0.5) for number in range(3, 40) if number % 7 not in (0, 1, 2)}
    for step in range(2 * 60, 41 * 60, 35):
        moment = at(step / 60)
        assert find(moment) == next((number for number, time in commits.items() if time > moment), None)
    assert find(at(1), after=20 * SIZE) == 20


def test_events_can_be_searched_from_a_base_on(repository: Repository) -> None:
    put(repository, 3, commit(1, at(3)))
    put(repository, 4, commit(2, at(4)), restore_point("before the change", at(4.1)), commit(3, at(4.2)))
    coverage = WalCoverage.load(repository.wal, SYSTEM)
    path = coverage.path(1)
    (run,) = coverage.runs(path)
    found = list(coverage.events(path, run, 3 * SIZE + 500))
    assert [event.xid for event in found if isinstance(event, Commit)] == [2, 3]
    assert isinstance(found[1], RestorePoint)
    assert found[1].name == "before the change"
    named = next(event for event in found if isinstance(event, RestorePoint))
    assert named.time == at(4.1)
    assert found[1].lsn < found[1].end == found[2].lsn


def test_histories_that_make_no_sense_are_damage() -> None:
    good = b'# comment\n1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tat restore point "a\rb"\n'
    assert path_of(3, good).stretches == (
        Stretch(1, 0, 0x3000148),
        Stretch(2, 0x3000148, 0x5000000),
        Stretch(3, 0x5000000, None),
    )
    for bad in (b"1 x\n", b"3 0/1\n", b"2 0/5\n1 0/6\n", b"\xff\n"):
        with pytest.raises(CorruptedBackup, match="history of timeline 3"):
            path_of(3, bad)


def test_a_name_keeps_its_cluster(repository: Repository) -> None:
    wal, clock = repository.wal, repository.clock
    wal.bind("main", SYSTEM, clock)
    wal.bind("main", SYSTEM, clock)
    wal.bind("ä b", SYSTEM + 1, clock)
    with pytest.raises(IdentityMismatch, match=str(SYSTEM)):
        wal.bind("main", 5, clock)
    assert wal.names() == {"main": SYSTEM, "ä b": SYSTEM + 1}
    assert (wal.bound("main"), wal.bound("none")) == (SYSTEM, None)
    assert not any("main" in name for name in wal.objects())
    one, other = sorted(wal.objects())
    store = repository.backend
    with pytest.raises(CorruptedBackup, match="another name"):
        wal.check(one, store.retrieve(other))


def test_parts_that_went_since_they_were_listed_are_read_whole(repository: Repository) -> None:
    put(repository, 3, commit(1, at(3)), part=4096)
    file, listed = next(iter(repository.wal.files(SYSTEM).items()))
    put(repository, 3, commit(1, at(3)))
    repository.wal.forget_parts(SYSTEM, file, listed)
    assert repository.wal.read(SYSTEM, file, listed) == segment(3, [commit(1, at(3))])
    with pytest.raises(ObjectNotFound):
        repository.wal.read(SYSTEM, segment_name(1, 4 * SIZE, SIZE), StoredFile(parts=[(0, 10)]))


def test_windows_of_a_server_show_a_lost_segment(server: Server, archive: Archive) -> None:
    with ThreadedReceiver(archive, server):
        for number in range(4):
            server.sql(f"create table t{number}(i int); select pg_switch_wal()")
            if number == 0:
                add_base(archive, server)
        before = datetime.fromisoformat(server.sql("select clock_timestamp()").replace(" ", "T") + ":00")
        server.sql("create table last(i int)")
        until_stored(archive, server)
    (window,) = archive.json("pg", "windows", "--name", "main")
    assert window["gaps"] == []
    assert window["timeline"] == 1
    end = datetime.fromisoformat(window["end_time"])
    assert timedelta() <= end - before < timedelta(seconds=10)
    assert window["start_time"] < window["end_time"]
    unknown = archive.run("pg", "windows", "--name", "none", status=1)
    assert "no cluster is called none" in unknown.stderr
    shown = archive.run("pg", "windows").stdout
    assert "main" in shown
    assert max(map(len, shown.splitlines())) <= 80
    status = archive.json("pg", "status", "--name", "main")
    assert status["problems"] == []
    assert status["stored_lsn"] == window["end_lsn"]
    done = archive.run("pg", "status", "--name", "main", server.url, status=1)
    assert "no receiver runs" in done.stderr
    assert "last commit" in done.stdout
    done = archive.run("pg", "status", "--name", "none", status=1)
    assert "known are main" in done.stderr

    with archive.open() as repository:
        files = repository.wal.files(system_of(server))
        whole = [file for file, stored in files.items() if stored.whole]
        repository.wal.remove(system_of(server), whole[-1], files[whole[-1]])
    (window,) = archive.json("pg", "windows", "--name", "main")
    assert [gap["segments"] for gap in window["gaps"]] == [1]
    assert window["gaps"][0]["from_lsn"] == window["end_lsn"]
    assert "1 segment missing" in archive.run("pg", "windows").stdout
    (problem,) = archive.json("pg", "status", "--name", "main", status=1)["problems"]
    assert "no base backup lies behind the gap" in problem
    (gap,) = archive.json("pg", "acknowledge-gap", "--name", "main", "--reason", "a disk was full")
    assert (gap["from_lsn"], gap["acknowledged"]["reason"]) == (window["end_lsn"], "a disk was full")
    assert "acknowledged before" in archive.run("pg", "acknowledge-gap", "--name", "main").stdout
    assert archive.json("pg", "status", "--name", "main")["problems"] == []
    shown = archive.run("pg", "windows").stdout
    assert "1 segment missing" in shown
    assert "a disk was full" in shown
    with archive.open() as repository, pytest.raises(WalGap):  # nor does anything lead across it
        plan_recovery(repository, "main", "latest", RecoveryTarget(kind="time", time=before))
