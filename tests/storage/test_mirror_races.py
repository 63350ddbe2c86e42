"""Random orders of writers on a mirror, with crashes at any call, one of the copies losing some calls."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from backstay.errors import BackstayError, ObjectExists
from backstay.storage.backend import Buffer, ObjectInfo, StorageBackend
from backstay.storage.crash_order import is_transient
from backstay.storage.memory import MemoryStorage
from backstay.storage.mirror_log import MirrorLog
from backstay.storage.mirrored import Mirrored
from backstay.testing import CrashPoint, Fault, FaultyBackend, Interleaving
from tests.storage.test_quota import Ticking

DECIDED = "snapshots/contested"
SCHEDULES = int(os.environ.get("BACKSTAY_SCHEDULES", "2000"))


class Below(StorageBackend):
    """The part of a store below a prefix, as a store: so that one schedule orders the calls to both copies."""

    def __init__(self, inner: StorageBackend, prefix: str) -> None:
        self._inner, self._prefix = inner, prefix

    @property
    def url(self) -> str:
        return f"{self._inner.url}{self._prefix}"

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        self._inner.store(self._prefix + name, data, overwrite=overwrite)

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        return self._inner.retrieve(self._prefix + name, start=start, length=length)

    def delete(self, name: str) -> None:
        self._inner.delete(self._prefix + name)

    def stat(self, name: str) -> ObjectInfo:
        return self._inner.stat(self._prefix + name)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        cut = len(self._prefix)
        for info in self._inner.list(self._prefix + prefix):
            yield ObjectInfo(name=info.name[cut:], size=info.size, modified_ns=info.modified_ns)

    def objects(self) -> dict[str, bytes]:
        return {info.name: self.retrieve(info.name) for info in self.list() if not is_transient(info.name)}


@dataclass
class Acknowledged:
    """What callers were told."""

    stored: dict[str, bytes] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    winners: list[bytes] = field(default_factory=list)


def mirror(store: StorageBackend, rng: random.Random, *, lossy: bool) -> Mirrored:
    """A new process; its way to the second copy fails now and then."""
    second = FaultyBackend(Below(store, "b/"))
    if lossy and rng.random() < 0.6:
        operation: Any = rng.choice(["store", "delete", "retrieve", "list"])
        kind: Any = "error_before" if operation in ("retrieve", "list") else rng.choice(["error_before", "error_after"])
        second.script(Fault(kind=kind, operation=operation, at=rng.randint(1, 4), repeat=rng.random() < 0.5))
    return Mirrored([Below(store, "a/"), second], quorum=1, random=rng.randbytes)


def writer(name: str, seed: int, told: Acknowledged) -> Any:
    def run(backend: StorageBackend) -> None:
        rng = random.Random(f"{seed}{name}")
        for part in range(2):
            knows_of_copy = rng.random() < 0.8
            with mirror(backend, rng, lossy=True) if knows_of_copy else Below(backend, "a/") as store:
                for number in range(rng.randint(1, 3)):
                    data = f"{name}{part}{number}".encode() * 9
                    digest = hashlib.sha256(data).hexdigest()
                    put(store, f"packs/{digest[:2]}/{digest}", data, told)
                data = f"{name}{part}".encode()
                put(store, f"index/{name}{part}", data, told)
                contest(store, data, told)
                if part and knows_of_copy:
                    remove(store, f"index/{name}0", told)

    return run


def put(store: StorageBackend, name: str, data: bytes, told: Acknowledged) -> None:
    store.store(name, data)
    told.stored[name] = data


def contest(store: StorageBackend, data: bytes, told: Acknowledged) -> None:
    try:
        store.store(DECIDED, data)
    except ObjectExists:
        return
    told.winners.append(data)


def remove(store: StorageBackend, name: str, told: Acknowledged) -> None:
    told.stored.pop(name, None)  # from here on it may be gone
    store.delete(name)
    told.deleted.add(name)


def run(seed: int) -> tuple[int, bool]:
    """One order; (how many crashed, whether the copies differed before the last writer put that right)."""
    clock = Ticking()
    shared = MemoryStorage(clock=clock)
    first, second = Below(shared, "a/"), Below(shared, "b/")
    for each in (first, second):
        each.store("repo.json", b"{}")
    told = Acknowledged()
    order = Interleaving(seed, shared, crash_probability=0.01, pause_probability=0.05)
    outcomes = order.run({name: writer(name, seed, told) for name in ("x", "y", "z")})
    for outcome in outcomes.values():
        assert outcome.error is None or isinstance(outcome.error, (CrashPoint, BackstayError)), outcome
    assert len(told.winners) <= 1, f"seed {seed}: both were told that they won"
    differed = first.objects() != second.objects()

    clock.advance(25 * 3600)  # what writers left that died
    with mirror(shared, random.Random(seed), lossy=False) as store:
        store.store("index/last", b"")
    ours, theirs = first.objects(), second.objects()
    assert {name: ours.get(name) for name in told.stored} == told.stored, f"seed {seed}: an object was lost"
    assert not told.deleted & ours.keys(), f"seed {seed}"
    assert ours.items() <= theirs.items(), f"seed {seed}: the copy lacks something, or has something else"
    if not any(isinstance(outcome.error, CrashPoint) for outcome in outcomes.values()):
        # Who dies between sending an object and looking whether it is still in the first copy leaves it here.
        assert not told.deleted & theirs.keys(), f"seed {seed}: a deleted object is still in the copy"
    if told.winners:
        assert ours[DECIDED] == theirs[DECIDED] == told.winners[0], f"seed {seed}"
    marks = {info.name for info in first.list("mirror/")} - {"mirror/first"}
    begun = {mark.partition("/deleted/")[2] for mark in marks}  # by one who died before the end
    assert begun <= ours.keys(), f"seed {seed}: {marks}"
    return sum(outcome.crashed for outcome in outcomes.values()), differed


@pytest.mark.parametrize("block", range(4))
def test_what_was_acknowledged_is_in_every_copy_in_the_end(block: int) -> None:
    found = [run(seed) for seed in range(block, SCHEDULES, 4)]
    assert sum(crashed for crashed, _ in found) > 20
    assert sum(differed for _, differed in found) > 20


def nothing(*args: object, **more: object) -> None:
    """A step that is left out."""


@pytest.mark.parametrize("step", ["note_deleted", "forget_deleted"])
def test_each_step_is_needed(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test: without one of the marks some order goes wrong."""
    monkeypatch.setattr(MirrorLog, step, nothing)
    for seed in range(4000):
        try:
            run(seed)
        except AssertionError:
            return
    pytest.fail(f"4000 orders do without {step}")
