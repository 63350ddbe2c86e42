"""WAL goes with base backups: into repositories with other keys, onto media, and back."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import pytest

from backstay.errors import IdentityMismatch, WalConflict
from backstay.operations.clusters.acknowledge import acknowledge_gaps
from backstay.operations.clusters.plan import RecoveryTarget, plan_recovery
from backstay.operations.copies.export import ExportResult, ImportResult, export_snapshots, import_snapshots
from backstay.operations.copies.result import CopyResult
from backstay.operations.copies.transfer import copy_snapshots
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.operations.wal.expire import expire_wal, plan_expiries
from backstay.operations.wal.windows import covered
from backstay.repository.format import wal_name
from backstay.repository.repository import Repository
from backstay.storage.backend import StorageBackend
from backstay.testing import CrashPoint, Fault, FaultyBackend
from backstay.trust.secrets import Secret
from tests.operations.bases import NAME, make_base, store_wal, wal_file
from tests.operations.copies import SECRET, SMALL_PACKS, Store, damaged, make_source, open_alone
from tests.postgres.made_wal import SIZE, SYSTEM, at, commit, segment

OTHER = Secret.new_keyfile()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source", files=3)


@pytest.fixture
def ours(source: Path) -> Store:
    """Two base backups, a gap between them, WAL before the first, and a segment that is not complete."""
    store = Store("ours")
    with Repository.create(store, SECRET, environment=SMALL_PACKS) as repository:
        store_wal(repository, [1, 2, 3, 4, 6, 7, 8])
        make_base(repository, source, 3)
        make_base(repository, source, 7)
        repository.wal.store_part(SYSTEM, wal_file(9), 0, segment(9, [commit(9, at(9))])[: SIZE // 2])
    return store


@pytest.fixture
def theirs() -> Store:
    store = Store("theirs")
    Repository.create(store, OTHER, environment=SMALL_PACKS).close()
    return store


def copy(ours: StorageBackend, theirs: StorageBackend, *chosen: int) -> CopyResult:
    """Copy all base backups, or those at some places."""
    with open_alone(ours) as here, open_alone(theirs, OTHER) as there:
        live = here.snapshots.live()
        return copy_snapshots(here, there, [live[number] for number in chosen] or live)


def files(store: StorageBackend, secret: Secret = SECRET) -> list[str]:
    with open_alone(store, secret) as repository:
        return list(repository.wal.files(SYSTEM))


def assert_recovers_alike(ours: StorageBackend, theirs: StorageBackend, secret: Secret) -> None:
    with open_alone(ours) as here, open_alone(theirs, secret) as there:
        assert run_verify(there, options=VerifyOptions(read_data=1)).ok
        shown = [
            [(w.name, w.start_lsn, w.end_lsn, w.end_time, bool(w.gaps)) for w in covered(repository)]
            for repository in (here, there)
        ]
        assert shown[0] == shown[1]
        target = RecoveryTarget(kind="time", time=at(8) + timedelta(seconds=1))
        plans = [plan_recovery(repository, NAME, "latest", target) for repository in (here, there)]
        assert [file.name for file in plans[0].segments] == [file.name for file in plans[1].segments]
        assert plans[0].last_commit == plans[1].last_commit == at(8)


def test_a_copy_recovers_to_the_same(ours: Store, theirs: Store) -> None:
    result = copy(ours, theirs)
    assert (len(result.copied), result.wal_files, result.findings) == (2, 5, ())
    assert files(theirs, OTHER) == [wal_file(number) for number in (3, 4, 7, 8, 9)]
    assert_recovers_alike(ours, theirs, OTHER)


def test_a_second_copy_sends_only_what_is_new(ours: Store, theirs: Store) -> None:
    copy(ours, theirs)
    again = copy(ours, theirs)
    assert (again.copied, again.wal_files, again.bytes) == ((), 0, 0)
    with open_alone(ours) as repository:
        data = segment(9, [commit(9, at(9))])
        repository.wal.store_part(SYSTEM, wal_file(9), SIZE // 2, data[SIZE // 2 : SIZE // 2 + 100])
    more = copy(ours, theirs)
    assert more.wal_files == 1
    assert 100 < more.bytes < 1000
    with open_alone(ours) as repository:
        repository.wal.store(SYSTEM, wal_file(9), data)
    more = copy(ours, theirs)
    assert more.wal_files == 1
    assert 100 < more.bytes < SIZE
    with open_alone(theirs, OTHER) as there:
        found = there.wal.files(SYSTEM)[wal_file(9)]
        assert (found.whole, found.parts) == (True, [])
    assert_recovers_alike(ours, theirs, OTHER)


def test_one_base_backup_takes_what_can_be_recovered_from_it(ours: Store, theirs: Store) -> None:
    copy(ours, theirs, 0)
    assert files(theirs, OTHER) == [wal_file(3), wal_file(4)]


def test_another_timeline_goes_with_its_history(ours: Store, theirs: Store) -> None:
    with open_alone(ours) as repository:
        repository.wal.store(SYSTEM, "00000002.history", b"1\t0/880000\tpromoted\n")
        store_wal(repository, [8, 9, 10], timeline=2)
    copy(ours, theirs)
    assert {"00000002.history", *(wal_file(number, 2) for number in (8, 9, 10))} <= set(files(theirs, OTHER))
    with open_alone(ours) as here, open_alone(theirs, OTHER) as there:
        ends = [[(window.timeline, window.end_lsn) for window in covered(one)] for one in (here, there)]
    assert ends[0] == ends[1]
    assert (2, 11 * SIZE) in ends[1]


@pytest.mark.parametrize("kind", ["crash_before", "crash_after"])
def test_a_copy_that_stops_anywhere_is_finished_by_the_next(ours: Store, kind: str) -> None:
    stops = 0
    for number in range(1, 40):
        target = Store(f"{kind}-{number}")
        Repository.create(target, OTHER, environment=SMALL_PACKS).close()
        faulty = FaultyBackend(target)
        faulty.script(Fault(kind=kind, operation="store", at=number))  # type: ignore[arg-type]
        try:
            copy(ours, faulty)
        except CrashPoint:
            stops += 1
        else:
            break
        with open_alone(target, OTHER) as there:
            assert all(window.end_time for window in covered(there))  # what is there can be recovered
        copy(ours, target)
        assert_recovers_alike(ours, target, OTHER)
    assert stops > 10


def test_other_bytes_under_the_same_name_are_a_conflict(ours: Store, theirs: Store) -> None:
    with open_alone(theirs, OTHER) as there:
        there.wal.bind(NAME, SYSTEM, there.clock)
        there.wal.store(SYSTEM, wal_file(8), segment(8, [commit(99, at(99))]))
    with pytest.raises(WalConflict, match=wal_file(8)):
        copy(ours, theirs)
    with open_alone(theirs, OTHER) as there:
        assert there.snapshots.live() == []


def test_a_beginning_with_other_bytes_is_a_conflict(ours: Store, theirs: Store) -> None:
    with open_alone(theirs, OTHER) as there:
        there.wal.store_part(SYSTEM, wal_file(3), 0, b"something else")
    with pytest.raises(WalConflict, match=wal_file(3)):
        copy(ours, theirs)


def test_a_name_of_another_cluster_is_refused(ours: Store, theirs: Store) -> None:
    with open_alone(theirs, OTHER) as there:
        there.wal.bind(NAME, 8, there.clock)
    with pytest.raises(IdentityMismatch):
        copy(ours, theirs)
    assert files(theirs, OTHER) == []


def test_damaged_wal_stays_and_is_told_once(ours: Store, theirs: Store) -> None:
    name = wal_name(SYSTEM, wal_file(4))
    whole = ours.retrieve(name)
    ours.store(name, damaged(whole, random.Random(1)), overwrite=True)
    result = copy(ours, theirs)
    assert len(result.copied) == 2
    assert [finding.subject for finding in result.findings] == [f"WAL {wal_file(4)} of cluster {SYSTEM}"]
    assert wal_file(4) not in files(theirs, OTHER)
    ours.store(name, whole, overwrite=True)
    assert copy(ours, theirs).wal_files == 1
    assert_recovers_alike(ours, theirs, OTHER)


def test_wal_that_expired_there_before_its_base_backup_came_is_sent_again(ours: Store, theirs: Store) -> None:
    """An expiry in the other repository runs when the WAL is there, and the older base backup is not yet."""
    copy(ours, theirs, 1)
    ran: list[int] = []

    class Meddled(Store):
        def store(self, name: str, data: object, *, overwrite: bool = False) -> None:
            if name.startswith("sessions/") and not ran:
                with open_alone(Store("again", self.objects()), OTHER) as view:
                    plan = next(iter(plan_expiries(view)))
                ran.append(len(plan.expired))
                for file in plan.expired:
                    self.delete(wal_name(SYSTEM, file))
            super().store(name, data, overwrite=overwrite)  # type: ignore[arg-type]

    meddled = Meddled("meddled", theirs.objects())
    copy(ours, meddled)
    assert ran == [2]
    assert_recovers_alike(ours, meddled, OTHER)


def test_wal_is_not_removed_under_a_copy(ours: Store, theirs: Store) -> None:
    kept: list[tuple[str, ...]] = []

    class Watched(Store):
        def store(self, name: str, data: object, *, overwrite: bool = False) -> None:
            if name.startswith("snapshots/") and not kept:
                with open_alone(ours) as here:
                    kept.extend(expire_wal(here, plan).waiting_for for plan in plan_expiries(here))
            super().store(name, data, overwrite=overwrite)  # type: ignore[arg-type]

    copy(ours, Watched("watched", theirs.objects()))
    assert len(kept) == 1
    assert kept[0]
    assert not list(ours.list("readers/"))


# --- media


def export(ours: StorageBackend, medium: StorageBackend, *chosen: int) -> ExportResult:
    with open_alone(ours) as repository:
        live = repository.snapshots.live()
        return export_snapshots(repository, medium, [live[number] for number in chosen] or live)


def bring_back(ours: StorageBackend, medium: StorageBackend) -> ImportResult:
    with open_alone(ours) as repository:
        return import_snapshots(repository, medium)


def test_a_medium_recovers_to_the_same(ours: Store) -> None:
    medium = Store("medium")
    result = export(ours, medium)
    assert (len(result.exported), result.wal_objects) == (2, 6)  # five files and a name
    assert_recovers_alike(ours, medium, SECRET)
    again = export(ours, medium)
    assert (again.exported, again.objects, again.wal_objects, again.bytes) == ((), 0, 0, 0)
    with open_alone(ours) as repository:
        repository.wal.store(SYSTEM, wal_file(9), segment(9, [commit(9, at(9))]))
        repository.wal.forget_parts(SYSTEM, wal_file(9), repository.wal.files(SYSTEM)[wal_file(9)])
    assert export(ours, medium).wal_objects == 1
    assert {info.name for info in medium.list("wal/")} < {info.name for info in ours.list("wal/")}
    assert_recovers_alike(ours, medium, SECRET)


def test_damaged_wal_stays_behind_an_export_and_all_else_goes(ours: Store) -> None:
    medium, name = Store("medium"), wal_name(SYSTEM, wal_file(4))
    whole = ours.retrieve(name)
    ours.store(name, damaged(whole, random.Random(1)), overwrite=True)
    result = export(ours, medium)
    assert (len(result.exported), result.wal_objects) == (2, 5)
    assert [finding.subject for finding in result.findings] == [f"WAL {wal_file(4)} of cluster {SYSTEM}"]
    ours.store(name, whole, overwrite=True)
    assert export(ours, medium).wal_objects == 1
    assert_recovers_alike(ours, medium, SECRET)


def test_a_segment_that_becomes_whole_during_an_export_goes_whole(ours: Store) -> None:
    class Receiving(Store):
        def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
            if name.startswith(f"{wal_name(SYSTEM, wal_file(9))}."):
                self.delete(name)
                with open_alone(self) as there:
                    there.wal.store(SYSTEM, wal_file(9), segment(9, [commit(9, at(9))]))
            return super().retrieve(name, start=start, length=length)

    medium = Store("medium")
    assert export(Receiving("receiving", ours.objects()), medium).wal_objects == 6
    assert wal_file(9) in files(medium, SECRET)


def test_an_import_brings_back_wal_that_was_lost(ours: Store) -> None:
    medium = Store("medium")
    export(ours, medium)
    ours.delete(wal_name(SYSTEM, wal_file(8)))
    result = bring_back(ours, medium)
    assert (result.imported, len(result.already), result.wal_files) == ((), 2, 1)
    assert_recovers_alike(ours, medium, SECRET)


def test_an_import_brings_base_backups_back_with_their_wal(ours: Store) -> None:
    medium = Store("medium")
    export(ours, medium)
    with open_alone(ours) as repository:
        for manifest in repository.snapshots.live():
            repository.snapshots.drop(manifest.id, "", repository.clock)
        for file, stored in repository.wal.files(SYSTEM).items():
            repository.wal.remove(SYSTEM, file, stored)
    result = bring_back(ours, medium)
    assert (len(result.imported), result.wal_files) == (2, 5)
    assert_recovers_alike(ours, medium, SECRET)


# --- gaps that somebody knows of


def acknowledge(store: StorageBackend) -> None:
    with open_alone(store) as repository:
        acknowledge_gaps(repository, NAME, who="eve", reason="the disk was full")


def known(store: StorageBackend, secret: Secret) -> list[tuple[str, str] | None]:
    """Who knows of each gap that windows show, and why."""
    with open_alone(store, secret) as repository:
        gaps = [gap for window in covered(repository) for gap in window.gaps]
    return [None if gap.known is None else (gap.known.who, gap.known.reason) for gap in gaps]


def test_a_gap_that_somebody_knows_of_is_known_in_a_copy(ours: Store, theirs: Store) -> None:
    """It is wider there: segment 6, before the second base backup, does not go."""
    copy(ours, theirs)
    assert known(theirs, OTHER) == [None]
    acknowledge(ours)
    assert known(ours, SECRET) == [("eve", "the disk was full")]
    copy(ours, theirs)
    assert known(theirs, OTHER) == known(ours, SECRET)
    assert_recovers_alike(ours, theirs, OTHER)


def test_a_gap_that_somebody_knows_of_is_known_on_a_medium_and_back_again(ours: Store) -> None:
    acknowledge(ours)
    medium = Store("medium")
    export(ours, medium)
    assert known(medium, SECRET) == known(ours, SECRET)
    for info in list(ours.list("wal/gaps/")):
        ours.delete(info.name)
    bring_back(ours, medium)
    assert known(ours, SECRET) == [("eve", "the disk was full")]
    assert_recovers_alike(ours, medium, SECRET)


def test_what_is_missing_besides_what_was_acknowledged_is_not_known(ours: Store, theirs: Store) -> None:
    acknowledge(ours)
    ours.delete(wal_name(SYSTEM, wal_file(6)))  # the gap is wider now than what somebody knows of
    copy(ours, theirs)
    assert known(theirs, OTHER) == [None]


def test_a_damaged_segment_beside_a_known_gap_is_not_taken_for_known(ours: Store, theirs: Store) -> None:
    acknowledge(ours)
    name = wal_name(SYSTEM, wal_file(4))
    whole = ours.retrieve(name)
    ours.store(name, damaged(whole, random.Random(1)), overwrite=True)
    assert copy(ours, theirs).findings
    assert known(theirs, OTHER) == [None]
    ours.store(name, whole, overwrite=True)
    copy(ours, theirs)
    assert known(theirs, OTHER) == [("eve", "the disk was full")]


def test_an_acknowledgement_goes_although_nothing_behind_its_gap_does(ours: Store, theirs: Store) -> None:
    acknowledge(ours)
    copy(ours, theirs, 0)
    assert known(theirs, OTHER) == []
    with open_alone(theirs, OTHER) as there:
        store_wal(there, [6])  # from elsewhere
    assert known(theirs, OTHER) == [("eve", "the disk was full")]


def test_a_known_gap_that_begins_within_a_segment_is_known_in_a_copy(source: Path, theirs: Store) -> None:
    """A server was lost within segment 4; segment 6, which is between gaps, does not go."""
    ours = Store("ours")
    with Repository.create(ours, SECRET, environment=SMALL_PACKS) as repository:
        store_wal(repository, [3, 6, 8])
        repository.wal.store_part(SYSTEM, wal_file(4), 0, segment(4)[: SIZE // 2])
        make_base(repository, source, 3)
        make_base(repository, source, 8)
    acknowledge(ours)
    assert known(ours, SECRET) == [("eve", "the disk was full")] * 2
    copy(ours, theirs)
    assert files(theirs, OTHER) == [wal_file(number) for number in (3, 4, 8)]
    assert known(theirs, OTHER) == [("eve", "the disk was full")]
