"""The locks of the binary log that recoveries of a real server read are extended, and those of no other file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from backstay.operations.locks.extend import plan_extension, run_extension
from backstay.operations.retention.logs import needed_logs
from backstay.repository.format import wal_name
from backstay.repository.repository import Environment, Repository
from backstay.testing import FakeClock, LockedStorage
from tests.mysql.histories import History, planned
from tests.mysql.receivers import NAME, Receiver, dump, stored, until_stored
from tests.mysql.servers import Server

LONG = timedelta(days=30)


def extended(history: History, window: timedelta | None = None) -> tuple[LockedStorage, FakeClock]:
    """What the history's repository is in a store with locks, when it was retained after twenty days."""
    clock = FakeClock(datetime.now(UTC))
    store = LockedStorage(clock=clock)
    backend = history.archive.storage()
    for info in list(backend.list()):
        store.store(info.name, backend.retrieve(info.name))
    clock.advance(timedelta(days=20).total_seconds())
    with Repository.open(store, history.archive.secret, environment=Environment(clock=clock)) as repository:
        kept = repository.snapshots.live()
        run_extension(repository, plan_extension(repository, kept, logs=needed_logs(repository, kept, window=window)))
    return store, clock


def test_what_a_recovery_reads_stays_locked(history: History) -> None:
    store, clock = extended(history)
    with history.archive.open() as repository:
        whole = {
            wal_name(planned(repository).archive.system, file)
            for file, found in repository.wal.files(planned(repository).archive.system).items()
            if found.whole
        }
        binding = repository.wal.binding_name(NAME)
    assert len(whole) >= 4, "two complete files, each with its end"
    assert all(store.locks[name] > clock.now() + LONG for name in (*whole, binding))
    assert {name for name in store.extended if name.startswith("wal/")} == whole | {binding}


def test_a_window_lets_go_of_files_before_its_dump(living: History, origin: Server) -> None:
    with living.archive.open() as repository, Receiver(living.archive, origin) as receiver:
        origin.sql("FLUSH BINARY LOGS")
        dump(repository, origin)
        origin.sql("CREATE TABLE again (id INT); FLUSH BINARY LOGS", "shop")
        until_stored(living.archive, origin, receiver)
    with living.archive.open() as repository:
        since = planned(repository).dump.position.file
        found = stored(repository)
        names = {
            log.file: {wal_name(found.system, file) for file, kept in found.reachable(log).items() if kept.whole}
            for log in found.logs.values()
        }
    store, _ = extended(living, timedelta(0))
    for file, objects in names.items():
        assert objects & set(store.extended) == (objects if file >= since else set()), file
    assert names[since]
