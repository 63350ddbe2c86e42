"""Storers, deleters, folders, referrers and collectors of values on one store, their calls ordered by a seed."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from unittest.mock import patch

import msgspec

from backstay.codec.chunker import CdcSizes
from backstay.errors import BackstayError, CorruptedBackup, NotFound
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.collection.collector import Collector
from backstay.repository.nodes import Node
from backstay.repository.repository import Repository
from backstay.repository.sessions.session import LEASE, Session
from backstay.repository.snapshots.store import Manifest, is_values
from backstay.repository.trees.node_tree import NodeTree
from backstay.repository.values import batch as batch_module
from backstay.repository.values import fold as fold_module
from backstay.repository.values import writing as writing_module
from backstay.repository.values.references import named_values, refers_to_values
from backstay.repository.values.writing import COVERS, writing_values
from backstay.storage.backend import StorageBackend
from backstay.testing import Interleaving
from tests.protocol.scheduling import SECRET, InlineWorkers, Profile, ScheduledWorld, Unreliable, in_small

VALUES: Final = [random.Random(number).randbytes(size) for number, size in enumerate((5, 20, 30, 90, 400, 700))]
KEYS: Final = ["sha256:" + hashlib.sha256(value).hexdigest() for value in VALUES]
ORDINARY: Final = Profile(rounds=(2, 5), linger=0.05)
SLOW: Final = Profile(rounds=(2, 6), linger=0.15, crash=0.001)


@dataclass(slots=True)
class Deed:
    """One call: what it was about, when it began and ended by the schedule, and whether it was told to have worked."""

    kind: str
    value: int
    began: int
    ended: int | None = None
    result: bool | None = None

    def may_follow(self, other: Deed) -> bool:
        """Whether this may have had its effect after the other's."""
        return self.ended is None or self.ended >= other.began


class ValuesWorld(ScheduledWorld):
    """Every deed is remembered, and judged at the end."""

    def __init__(self, seed: int, profile: Profile = ORDINARY) -> None:
        super().__init__(seed, profile)
        self.deeds: list[Deed] = []
        self.schedule: Interleaving | None = None
        with Repository.create(self.store, SECRET, environment=self.environment()):
            pass

    def now(self) -> int:
        return len(self.schedule.schedule) if self.schedule is not None else 0

    @contextmanager
    def deed(self, kind: str, value: int) -> Iterator[Deed]:
        made = Deed(kind, value, self.now())
        self.deeds.append(made)
        try:
            yield made
        finally:
            made.ended = self.now()

    # what actors do

    def _store(self, cas: ContentAddressableStorage) -> None:
        chosen = self.rng.sample(range(len(VALUES)), self.rng.choice((1, 1, 1, 3)))
        made = [Deed("store", value, self.now()) for value in chosen]
        self.deeds += made
        try:
            if len(chosen) == 1:
                cas.store(VALUES[chosen[0]])
            else:
                with cas.batch() as batch:
                    for value in chosen:
                        batch.store(VALUES[value])
            for deed in made:
                deed.result = True
        finally:
            for deed in made:
                deed.ended = self.now()

    def _delete(self, cas: ContentAddressableStorage) -> None:
        value = self.rng.randrange(len(VALUES))
        with self.deed("delete", value) as deed:
            deed.result = cas.delete(KEYS[value])

    def _look(self, cas: ContentAddressableStorage) -> None:
        value = self.rng.randrange(len(VALUES))
        with self.deed("look", value) as deed:
            try:
                deed.result = cas.retrieve(KEYS[value]) == VALUES[value]
            except NotFound:
                deed.result = False
                return
            assert deed.result, f"value {value} has other bytes"

    def _fold(self, cas: ContentAddressableStorage) -> None:
        cas.fold()

    def _collect(self, cas: ContentAddressableStorage) -> None:
        collector = Collector(cas._repository, lease=LEASE)
        collector.execute(collector.plan(allow_empty=True))

    def _refer(self, cas: ContentAddressableStorage) -> None:
        """A snapshot of a graph, as its owner makes it: session, intent, look, commit."""
        repository = cas._repository
        value = self.rng.randrange(len(VALUES))
        with writing_values(repository) as writer:
            cas.intend(writer.session.id)
            if cas.missing([KEYS[value]]):
                return
            manifest = _graph_snapshot(repository, writer, [value])
            with writer.session.deciding():
                writer.commit(manifest)

    def _drop(self, cas: ContentAddressableStorage) -> None:
        """Let a snapshot of a graph go, so that its value can."""
        repository = cas._repository
        graphs = [manifest for manifest in repository.snapshots.live() if refers_to_values(manifest)]
        if graphs:
            repository.snapshots.drop(self.rng.choice(graphs).id, "test", self.clock)

    def _actor(self, act: Callable[[ContentAddressableStorage], None]) -> Callable[[StorageBackend], object]:
        rounds = self.rng.randint(*self.profile.rounds)

        def run(scheduled: StorageBackend) -> None:
            backend = Unreliable(scheduled, self.rng, self.profile)
            cas: ContentAddressableStorage | None = None
            for _ in range(rounds):
                if cas is None or self.rng.random() < 0.3:
                    cas = ContentAddressableStorage(self.open(backend))
                try:
                    act(cas)
                except BackstayError as error:
                    self.errors[f"{act.__name__}: {type(error).__name__}: {error}"[:120]] += 1
                    if isinstance(error, CorruptedBackup) and act.__name__ != "_collect":
                        raise AssertionError("something was taken for damage") from error

        return run

    def actors(self) -> dict[str, Callable[[StorageBackend], object]]:
        rng = self.rng
        actors: dict[str, Callable[[StorageBackend], object]] = {}
        for act, least, most in (
            (self._store, 1, 3),
            (self._delete, 0, 2),
            (self._look, 0, 1),
            (self._fold, 1, 2),
            (self._refer, 0, 2),
            (self._drop, 0, 1),
            (self._collect, 0, 1),
        ):
            actors |= {f"{act.__name__}{n}": self._actor(act) for n in range(rng.randint(least, most))}
        if rng.random() < self.profile.late:
            actors["time"] = self.pass_time
        return actors

    def run(self) -> None:
        self.schedule = self.interleaving()
        self.schedule.run(self.actors())

    # what must hold

    def check(self) -> None:
        """Everything that was promised, at once, and after two quiet folds and collections; then no garbage is left."""
        for deed in self.deeds:
            if deed.kind == "look" and deed.result is False:  # what was removed elsewhere may be given once more
                self._judge(deed, is_there=False)
        self.check_now()
        self.clock.advance(3 * LEASE / timedelta(seconds=1))
        for _ in range(2):
            cas = ContentAddressableStorage(self.open(self.store))
            cas.fold()
            self._collect(cas)
            self.check_now()
        self.check_garbage()

    def check_now(self) -> None:
        """No acknowledged value is lost, none that was deleted is back, and what a graph refers to is there."""
        repository = self.open(self.store)
        cas = ContentAddressableStorage(repository)
        listed = set(cas.list())
        for value, key in enumerate(KEYS):
            is_there = cas.exists(key)
            assert is_there == (key in listed)
            assert not is_there or cas.retrieve(key) == VALUES[value]
            self._judge(Deed("end", value, self.now() + 1), is_there=is_there)
        for manifest in repository.snapshots.live():
            if refers_to_values(manifest):
                for digest in named_values(repository, manifest):
                    assert cas.exists(digest.hex()), f"a value that {manifest.id} refers to is lost"

    def _judge(self, look: Deed, *, is_there: bool) -> None:
        others = [
            deed for deed in self.deeds if deed.value == look.value and (look.ended is None or deed.began <= look.ended)
        ]
        stores = [deed for deed in others if deed.kind == "store"]
        removals = [deed for deed in others if deed.kind == "delete" and deed.result is not False]
        surely = [deed for deed in stores if deed.result and deed.ended is not None and deed.ended < look.began]
        for store in surely:
            lost = not is_there and not any(removal.may_follow(store) for removal in removals)
            assert not lost, f"value {look.value} was acknowledged, and is lost: {store}"
        gone = [deed for deed in removals if deed.result and deed.ended is not None and deed.ended < look.began]
        for removal in gone:
            back = is_there and not any(store.may_follow(removal) for store in stores)
            assert not back, f"value {look.value} was deleted, and is back: {removal}"
        assert stores or not is_there

    def check_garbage(self) -> None:
        """One checkpoint stands for all, and one snapshot holds all values.

        Folds that were cut short or late may have left a checkpoint that does not count, or a snapshot that none names,
        until there is something new to fold.
        """
        repository = self.open(self.store)
        entries = repository.values_log.stored_numbers()
        live = [manifest for manifest in repository.snapshots.live() if is_values(manifest)]
        kept = [manifest.id for manifest in live]
        view = repository.values_log.refresh()
        assert [entry.number for entry in view.entries if entry.checkpoint is not None] == entries
        assert view.checkpoint is None or view.checkpoint.snapshot in kept
        left = [manifest for manifest in live if view.checkpoint is None or manifest.id != view.checkpoint.snapshot]
        assert all(int(manifest.consistency[COVERS]) > view.covers for manifest in left)


def _graph_snapshot(repository: Repository, writer: writing_module.ValueWriter, values: list[int]) -> Manifest:
    text = "".join(f"{KEYS[value].removeprefix('sha256:')}\n" for value in values).encode()
    digest, size, content = writer.put([text])
    node = Node(b"values.txt", 0o100644, 0, 0, "", "", size, 0, content, digest)
    root, stats, totals = NodeTree({b"values.txt": node}, mtime_ns=0).write(repository, writer._writer)
    writer._writer.flush()
    writer._index_settled()
    manifest = writer._manifest(root, stats, totals, {})
    return msgspec.structs.replace(manifest, source="graph:test")


# -- how schedules are run


class ValuesRunner:
    """Runs worlds one after the other; `current` is the one whose seed decides now."""

    def __init__(self, profile: Profile = ORDINARY) -> None:
        self.profile = profile
        self.current: ValuesWorld | None = None
        self.errors: Counter[str] = Counter()
        self.steps = 0

    def run(self, seed: int) -> None:
        """One schedule; what fails tells the seed."""
        with _patched(lambda: self.current):
            self.current = ValuesWorld(seed, self.profile)
            try:
                self.current.run()
                self.current.check()
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
            finally:
                self.errors.update(self.current.errors)
                self.steps += self.current.now()


@contextmanager
def _patched(world: Callable[[], ValuesWorld | None]) -> Iterator[None]:
    """Small sizes, no threads, chance from the world's seed."""

    with (
        in_small(world),
        patch.object(writing_module, "Workers", InlineWorkers),
        patch.object(writing_module, "VALUES_CHUNKS", CdcSizes(least=64, average=256, greatest=1024)),
        patch.object(batch_module, "SMALL_VALUE", 80),
        patch.object(batch_module, "INLINE_VALUES", 2),
        patch.object(fold_module, "MANY_ENTRIES", 4),
        patch.object(Session, "start_heartbeat", lambda _self, _every_s=0.0: None),
    ):
        yield
