"""A server is recovered from another repository, or a medium, to which its dump and its binary log were copied."""

from __future__ import annotations

import random

import pytest

from backstay.errors import IdentityMismatch, WalConflict
from backstay.operations.copies.export import export_snapshots, import_snapshots
from backstay.operations.copies.transfer import copy_snapshots
from backstay.operations.mysql.windows import binlog_windows
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.format import wal_name
from backstay.repository.repository import Repository
from backstay.storage.memory import MemoryStorage
from backstay.testing import CrashPoint, Fault, FaultyBackend
from backstay.trust.secrets import Secret
from tests.mysql.histories import History, at, recovered
from tests.mysql.receivers import NAME, contents, stored
from tests.mysql.servers import Server
from tests.operations.copies import Store, damaged

OTHER = Secret.new_keyfile()


@pytest.fixture
def theirs() -> MemoryStorage:
    store = MemoryStorage()
    Repository.create(store, OTHER).close()
    return store


def assert_alike(here: Repository, there: Repository) -> None:
    assert contents(here) == contents(there)
    shown = [
        [(window.start, window.end, window.start_time, window.end_time) for window in binlog_windows(one)]
        for one in (here, there)
    ]
    assert shown[0] == shown[1]
    assert run_verify(there, options=VerifyOptions(read_data=1)).ok


def test_a_copy_recovers_to_a_time(history: History, server: Server, theirs: MemoryStorage) -> None:
    with history.archive.open() as here, Repository.open(theirs, OTHER) as there:
        result = copy_snapshots(here, there, here.snapshots.live())
        assert result.wal_files >= 5, "two files with their ends, and what there is of a third"
        assert not list(here.backend.list("readers/"))
        assert_alike(here, there)
        _, second, third = history.moments
        assert recovered(there, server, at(third.second)) == second.state
        assert recovered(there, server, at(history.dropped)) == third.state
        again = copy_snapshots(here, there, here.snapshots.live())
        assert (again.copied, again.wal_files, again.bytes) == ((), 0, 0)


def test_a_medium_has_the_log_and_brings_it_back(history: History, server: Server) -> None:
    medium = MemoryStorage()
    with history.archive.open() as here:
        sent = export_snapshots(here, medium, here.snapshots.live())
        assert sent.wal_objects >= 6
        there = here.in_store(medium)
        there.reload_index()
        assert_alike(here, there)
        assert recovered(there, server, at(history.dropped)) == history.moments[-1].state
        before = contents(here)
        system = stored(here).system
        for file, kept in here.wal.files(system).items():
            here.wal.remove(system, file, kept)
        assert import_snapshots(here, medium).wal_files >= 5
        assert contents(here) == before


def test_a_copy_that_stops_anywhere_is_finished_by_the_next(history: History) -> None:
    stops = 0
    with history.archive.open() as here:
        for number in range(1, 60):
            target = MemoryStorage()
            Repository.create(target, OTHER).close()
            faulty = FaultyBackend(target)
            faulty.script(Fault(kind="crash_after", operation="store", at=number))
            try:
                with Repository.open(faulty, OTHER) as there:
                    copy_snapshots(here, there, here.snapshots.live())
            except CrashPoint:
                stops += 1
            else:
                break
            with Repository.open(target, OTHER) as there:
                assert all(window.gap is None for window in binlog_windows(there))
                copy_snapshots(here, there, here.snapshots.live())
                assert contents(here) == contents(there)
    assert stops > 5


def test_a_damaged_slice_ends_its_file_there_until_it_is_mended(history: History, theirs: MemoryStorage) -> None:
    with history.archive.open() as here, Repository.open(theirs, OTHER) as there:
        found = stored(here)
        first, second, *_ = found.logs
        name = wal_name(found.system, f"{second}.s00000")
        whole = here.backend.retrieve(name)
        here.backend.store(name, damaged(whole, random.Random(1)), overwrite=True)
        result = copy_snapshots(here, there, here.snapshots.live())
        (finding,) = result.findings
        assert finding.subject == f"binary log {second}.s00000 of server {found.system}"
        assert second not in stored(there).logs
        (window,) = binlog_windows(there)
        assert window.end is not None
        assert window.end.file == first
        assert window.gap is not None
        medium = Store("medium")
        assert export_snapshots(here, medium, here.snapshots.live()).findings[0].subject == finding.subject
        assert second not in stored(here.in_store(medium)).logs
        here.backend.store(name, whole, overwrite=True)
        assert copy_snapshots(here, there, here.snapshots.live()).findings == ()
        assert_alike(here, there)


def test_the_log_of_another_server_is_not_mixed_in(history: History, theirs: MemoryStorage) -> None:
    with history.archive.open() as here, Repository.open(theirs, OTHER) as there:
        there.wal.bind(NAME, 8, there.clock)
        with pytest.raises(IdentityMismatch):
            copy_snapshots(here, there, here.snapshots.live())
        assert there.wal.files(stored(here).system) == {}


def test_a_log_that_parted_is_a_conflict(history: History, theirs: MemoryStorage) -> None:
    with history.archive.open() as here, Repository.open(theirs, OTHER) as there:
        found = stored(here)
        file = f"{next(iter(found.logs))}.s00000"
        there.wal.store(found.system, file, b"other bytes")
        with pytest.raises(WalConflict, match=file):
            copy_snapshots(here, there, here.snapshots.live())
        assert there.snapshots.live() == []
