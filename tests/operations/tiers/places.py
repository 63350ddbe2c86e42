"""A repository in two tiers, and what is done with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from backstay.core.events import Event, ignore
from backstay.errors import (
    InvalidRequest,
)
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.operations.tiers.moving import (
    MoveResult,
    plan_move,
    run_move,
    set_tier,
)
from backstay.operations.verify.run import VerifyOptions
from backstay.repository.collection.collector import Collector
from backstay.repository.repository import Environment, Repository
from backstay.storage.backend import StorageBackend
from backstay.testing import FakeClock, MemoryStorage
from tests.operations.copies import SECRET, back_up, contents

DAY = 86400
READ_ALL = VerifyOptions(read_data=1)


@dataclass
class Place:
    """A repository whose cold tier can be taken away, on a clock that the test moves."""

    source: Path
    clock: FakeClock = field(default_factory=FakeClock)
    hot: StorageBackend = field(init=False)
    cold: StorageBackend = field(init=False)
    attached: bool = True

    def __post_init__(self) -> None:
        self.hot, self.cold = MemoryStorage(clock=self.clock), MemoryStorage(clock=self.clock)
        Repository.create(self.hot, SECRET, environment=self.environment).close()

    def _open_cold(self, address: str, create: bool) -> StorageBackend:
        if not self.attached:
            raise InvalidRequest(f"cannot open {address}", cause="it is in a drawer")
        return self.cold

    @property
    def environment(self) -> Environment:
        return Environment(pack_target=256 << 10, threads=2, clock=self.clock, open_cold=self._open_cold)

    def open(self) -> Repository:
        return Repository.open(self.hot, SECRET, environment=self.environment)

    def back_up(self) -> str:
        self.clock.advance(1)  # ids sort by time
        with self.open() as repository:
            return back_up(repository, self.source)

    def set(self, after_s: int = 0, address: str = "memory:drawer") -> None:
        with self.open() as repository:
            set_tier(repository, address, after_s)

    def move(self) -> MoveResult:
        with self.open() as repository:
            return run_move(repository, plan_move(repository))

    def restore(self, snapshot: str, to: Path, **options: object) -> dict[str, bytes | str]:
        with self.open() as repository:
            manifest = repository.snapshots.get(snapshot)
            result = run_restore(repository, manifest, to, RestoreOptions(verify=True, **options))  # type: ignore[arg-type]
        assert not result.errors
        return contents(to / str(self.source).lstrip("/"))


def names(store: StorageBackend, prefix: str = "packs/") -> set[str]:
    return {info.name for info in store.list(prefix)}


def ident(place: Place) -> str:
    with place.open() as repository:
        return repository.snapshots.live()[-1].id


def drop_all_but_last(place: Place) -> None:
    with place.open() as repository:
        for manifest in repository.snapshots.live()[:-1]:
            repository.snapshots.drop(manifest.id, "for a test", place.clock)


def collect(place: Place, events: Callable[[Event], None] = ignore) -> object:
    with place.open() as repository:
        collector = Collector(repository, events=events)
        return collector.execute(collector.plan())
