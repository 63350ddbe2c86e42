"""Writers are seen while they live, known to be dead where that can be known, and never taken for dead in doubt."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from backstay.errors import CorruptedBackup, StorageUnavailable
from backstay.repository.format import session_name
from backstay.repository.repository import Environment, Repository
from backstay.repository.sessions.session import (
    Process,
    Session,
    SessionRecord,
    is_dead_here,
    process_start,
    running_sessions,
)
from backstay.storage.backend import Buffer
from backstay.storage.memory import MemoryStorage
from backstay.testing.clock import FakeClock
from backstay.trust.secrets import Secret

BOOTED_NS = 10**18
HERE = Process("host/machine", "boot", "namespace", 1, "100", BOOTED_NS)


class Noting(MemoryStorage):
    """Tells when something was stored; while `broken` it stores nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.stored = threading.Semaphore(0)
        self.broken = False

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        self.stored.release()
        if self.broken:
            raise StorageUnavailable("the store is away")
        super().store(name, data, overwrite=overwrite)

    def delete(self, name: str) -> None:
        if self.broken:
            raise StorageUnavailable("the store is away")
        super().delete(name)


@pytest.fixture
def store() -> Noting:
    return Noting()


@pytest.fixture
def repository(store: Noting) -> Iterator[Repository]:
    environment = Environment(process=HERE, clock=FakeClock())
    with Repository.create(store, Secret.new_keyfile(), environment=environment) as repository:
        yield repository


def begun(repository: Repository) -> Session:
    session = Session(repository.backend, repository.keyring, repository.clock, process=HERE)
    session.announce()
    return session


def record_of(process: Process, started_ns: int = BOOTED_NS - 1) -> SessionRecord:
    return SessionRecord("s", process.host, process.boot, process.namespace, process.pid, process.start, started_ns)


def test_a_writer_gives_signs_of_life_also_after_one_failed(repository: Repository, store: Noting) -> None:
    with begun(repository) as session:
        while store.stored.acquire(blocking=False):
            pass
        store.broken = True
        session.start_heartbeat(0.001)
        assert store.stored.acquire(timeout=30)
        store.broken = False
        for _ in range(4):
            assert store.stored.acquire(timeout=30)
        [running] = running_sessions(store, repository.keyring)
        assert running.id == session.id
        assert session_name(session.id, 0) in running.names, "the announcement itself stays"
    assert running_sessions(store, repository.keyring) == []


def test_what_closing_meets_does_not_hide_the_first_error(repository: Repository, store: Noting) -> None:
    def fail() -> NoReturn:
        store.broken = True
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), begun(repository):
        fail()
    store.broken = False
    [left] = running_sessions(store, repository.keyring)
    with pytest.raises(StorageUnavailable), begun(repository) as session:
        store.broken = True
    store.broken = False
    assert {running.id for running in running_sessions(store, repository.keyring)} == {left.id, session.id}


def test_a_session_that_cannot_be_read_is_still_a_session(repository: Repository, store: Noting) -> None:
    session = begun(repository)
    other = begun(repository)
    known = [each.record for each in running_sessions(store, repository.keyring)]
    assert [record and record.host for record in known] == [HERE.host, HERE.host]
    data = store.retrieve(session_name(other.id, 0))
    store.store(session_name(session.id, 0), data, overwrite=True)  # the record of another one
    store.store(session_name(other.id, 0), b"damaged", overwrite=True)
    running = running_sessions(store, repository.keyring)
    assert [each.record for each in running] == [None, None]


@pytest.mark.parametrize("name", ["sessions/nobody.1", "sessions/01m8hcmg000000000000000000.x"])
def test_foreign_objects_are_told(repository: Repository, store: Noting, name: str) -> None:
    store.store(name, b"")
    with pytest.raises(CorruptedBackup, match="foreign") as caught:
        running_sessions(store, repository.keyring)
    assert name in caught.value.cause


@pytest.mark.parametrize(
    ("there", "is_dead"),
    [
        ({}, True),  # nobody has this process id
        ({"boot": "an earlier boot"}, True),
        ({"host": "other/machine"}, False),
        ({"namespace": "a container"}, False),
    ],
)
def test_only_what_is_known_to_be_gone_is_dead(there: dict[str, Any], is_dead: bool) -> None:
    record = record_of(dataclasses.replace(HERE, **there))
    assert is_dead_here(record, HERE, start_of=lambda _: None) is is_dead
    assert not is_dead_here(record_of(HERE), HERE, start_of=lambda _: HERE.start), "it lives"
    assert is_dead_here(record_of(HERE), HERE, start_of=lambda _: "200"), "another process has its number"


def test_a_writer_on_a_clone_of_this_machine_lives_as_long_as_it_gives_signs(repository: Repository) -> None:
    """A machine and its clones have the same name and id, and each its own boots."""
    clock = repository.clock
    assert isinstance(clock, FakeClock)
    with begun(repository) as session:
        clock.advance(1)
        clone = dataclasses.replace(HERE, boot="of the clone", booted_ns=clock.now_ns())
        older = dataclasses.replace(clone, booted_ns=session_record(repository).started_ns)
        assert is_dead_here(session_record(repository), clone), "so it looks until the next sign"
        assert not is_dead_here(session_record(repository), older)
        assert not is_dead_here(session_record(repository), dataclasses.replace(clone, booted_ns=0)), "nobody knows"
        session.beat()
        assert not is_dead_here(session_record(repository), clone)


def session_record(repository: Repository) -> SessionRecord:
    [running] = running_sessions(repository.backend, repository.keyring)
    assert running.record is not None
    return running.record


@pytest.mark.parametrize("unknown", [{"boot": ""}, {"host": "host/"}])
def test_who_cannot_tell_says_no(unknown: dict[str, Any]) -> None:
    here = dataclasses.replace(HERE, **unknown)
    assert not is_dead_here(record_of(here), here, start_of=lambda _: None)


def test_a_real_process_is_known_by_its_start() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here = Process.current()
    there = dataclasses.replace(here, pid=child.pid, start=process_start(child.pid) or "")
    # Machines without an id or a boot id cannot tell.
    may_tell = bool(here.boot) and not here.host.endswith("/")
    assert here.start == process_start(os.getpid())
    assert 0 < here.booted_ns < time.time_ns()
    assert not is_dead_here(record_of(there), here)
    child.communicate(b"\n")
    assert process_start(child.pid) is None
    assert is_dead_here(record_of(there), here) is may_tell


def test_a_process_whose_name_is_no_text_has_a_start_too() -> None:
    naming = r"import ctypes; ctypes.CDLL(None).prctl(15, b'\xff) \xfe', 0, 0, 0); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", naming], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            start = process_start(child.pid)
        finally:
            child.communicate(b"\n")
    assert int(start or "") >= int(process_start(os.getpid()) or "")
