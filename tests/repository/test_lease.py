"""On a store that cannot decide between writers, there is one at a time."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from backstay.core.clock import SystemClock
from backstay.errors import RepositoryBusy
from backstay.repository.keys.keyring import Keyring
from backstay.repository.repository import Environment, Repository
from backstay.repository.sessions.lease import Lease
from backstay.repository.sessions.session import LEASE, Process
from backstay.storage.backend import Buffer, Capabilities, ObjectInfo
from backstay.storage.memory import MemoryStorage
from backstay.testing.clock import FakeClock
from backstay.trust.secrets import Secret

SECRET = Secret.new_keyfile()


class Loose(MemoryStorage):
    """Overwrites whatever is there, as many servers do."""

    capabilities = Capabilities(atomic_create=False)

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        super().store(name, data, overwrite=True)


class Hasty(SystemClock):
    """Waits for nobody: time is not what these tests are about."""

    def sleep(self, seconds: float) -> None:
        return


def process(name: str, pid: int = 1) -> Process:
    return Process(f"{name}/machine", "boot", "namespace", pid, "1")


@pytest.fixture
def store() -> Loose:
    return Loose()


def opened(store: Loose, name: str, clock: FakeClock | None = None) -> Repository:
    environment = Environment(process=process(name), clock=clock or Hasty())
    if store.exists("repo.json"):
        return Repository.open(store, SECRET, environment=environment)
    return Repository.create(store, SECRET, environment=environment)


def test_one_writer_works_as_ever_and_leaves_nothing(store: Loose) -> None:
    with opened(store, "one") as repository, repository.begin_session():
        assert len([*store.list("lease/")]) == 1
        repository.confirm_lease()
    assert [*store.list("lease/")] == []


def test_a_second_writer_is_told_who_the_first_one_is(store: Loose) -> None:
    with opened(store, "one") as first, first.begin_session():
        with opened(store, "two") as second, pytest.raises(RepositoryBusy, match="one") as caught:
            second.begin_session()
        assert caught.value.exit_status == 11
        first.confirm_lease()
    with opened(store, "two") as second, second.begin_session():
        second.confirm_lease()


def test_readers_need_no_lease(store: Loose) -> None:
    with opened(store, "one") as first, first.begin_session(), opened(store, "two") as second:
        assert second.snapshots.live() == []


def test_a_store_that_decides_needs_none() -> None:
    store = MemoryStorage()
    environment = Environment(process=process("one"))
    with Repository.create(store, SECRET, environment=environment) as one, one.begin_session():
        assert [*store.list("lease/")] == []


def test_a_writer_that_is_gone_is_done_without_after_a_while() -> None:
    clock = FakeClock()
    store = Loose(clock=clock)
    first = opened(store, "one", clock)
    first.begin_session()  # and then the machine goes down
    with opened(store, "two", clock) as second, pytest.raises(RepositoryBusy):
        second.begin_session()
    clock.advance(LEASE.total_seconds() + 1)
    with opened(store, "two", clock) as second, second.begin_session():
        second.confirm_lease()
        with pytest.raises(RepositoryBusy, match="took over"):
            first.confirm_lease()


def test_a_commit_without_the_lease_is_refused(store: Loose) -> None:
    with opened(store, "one") as first, first.begin_session():
        for info in [*store.list("lease/")]:
            store.delete(info.name)
        with pytest.raises(RepositoryBusy, match="lost"):
            first.confirm_lease()


@pytest.mark.parametrize("seed", range(5))
def test_of_many_that_begin_together_at_most_one_holds_it(store: Loose, seed: int) -> None:
    rng = random.Random(seed)  # repeatable
    with opened(store, "maker"):
        pass
    holders = most = 0
    lock = threading.Lock()

    def write(number: int) -> bool:
        nonlocal holders, most
        with opened(store, f"host-{number}") as repository:
            try:
                repository.require_fit()
            except RepositoryBusy:
                return False
            with lock:
                holders += 1
                most = max(most, holders)
            repository.confirm_lease()
            with lock:
                holders -= 1
            return True

    numbers = list(range(8))
    rng.shuffle(numbers)
    with ThreadPoolExecutor(8) as pool:
        taken = [*pool.map(write, numbers)]
    assert most <= 1
    assert [*store.list("lease/")] == []
    assert len(taken) == 8  # all may withdraw at once; the next one to come succeeds
    with opened(store, "late") as late, late.begin_session():
        late.confirm_lease()


def test_every_interleaving_of_two_has_at_most_one_holder(store: Loose) -> None:
    """Each step of one writer between any two of the other."""
    with opened(store, "maker") as maker:
        keyring = maker.keyring
        for at in range(12):
            held = _two(store, keyring, at)
            assert held <= 1, f"both hold it when the other begins at step {at}"
            assert [*store.list("lease/")] == []


def _two(store: Loose, keyring: Keyring, at: int) -> int:
    """How many hold the lease when a second writer takes it just before step `at` of the first."""
    holders: list[Lease] = []

    def taken(name: str, backend: Loose) -> None:
        rng = random.Random(f"{at} {name}")  # repeatable
        lease = Lease(backend, keyring, Hasty(), process=process(name), random=rng.randbytes)
        try:
            lease.take()
        except RepositoryBusy:
            return
        holders.append(lease)

    steps = Stepping(store, at, lambda: taken("two", store))
    taken("one", steps)
    for lease in holders:
        lease.close()
    return len(holders)


class Stepping(Loose):
    """Passes everything on, and lets something happen before one call."""

    def __init__(self, inner: Loose, at: int, happens: Callable[[], None]) -> None:
        super().__init__()
        self._inner, self._left, self._happens = inner, at, happens

    def _step(self) -> None:
        if self._left == 0:
            self._left -= 1
            self._happens()
        self._left -= 1

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        self._step()
        self._inner.store(name, data, overwrite=overwrite)

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._step()
        return self._inner.retrieve(name, start=start, length=length)

    def delete(self, name: str) -> None:
        self._step()
        self._inner.delete(name)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._step()
        return iter([*self._inner.list(prefix)])


class Forgetful(Loose):
    """Does not list yet what was just written."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter(()) if prefix.startswith("lease/") else super().list(prefix)


def test_who_does_not_find_its_own_lease_in_the_list_does_not_write() -> None:
    with opened(Forgetful(), "one") as repository, pytest.raises(RepositoryBusy, match="does not list"):
        repository.begin_session()
