"""What worlds of actors on one store share: their profile, their way to the store, their chance and their time.

Everything happens on the calling thread: the schedule knows no others.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from unittest.mock import patch

from backstay.core.pipeline import Workers
from backstay.errors import StorageUnavailable
from backstay.repository import records as records_module
from backstay.repository.blobs import writer as blob_writer
from backstay.repository.collection import compaction as compaction_module
from backstay.repository.collection import garbage as garbage_module
from backstay.repository.collection import rewriting as rewriting_module
from backstay.repository.repository import Environment, Repository
from backstay.repository.sessions.session import Process
from backstay.storage.backend import Buffer, ObjectInfo, StorageBackend
from backstay.storage.memory import MemoryStorage
from backstay.testing import FakeClock, Interleaving
from backstay.trust.secrets import Secret

Item = TypeVar("Item")
Result = TypeVar("Result")

SECRET: Final = Secret("keyfile", bytes(32))
NOBODY: Final = Process("", "", "", 0, "")  # nobody can tell that such a process is dead
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_DECISIVE: Final = ("gc/", "sessions/", "snapshots/", "drops/", "index/", "values/")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How many of each actor there may be, and what may go wrong."""

    writers: tuple[int, int] = (1, 3)
    rounds: tuple[int, int] = (1, 2)  # backups, drops or collections in a row, by one actor
    droppers: tuple[int, int] = (0, 2)
    collectors: tuple[int, int] = (1, 2)
    crash: float = 0.004
    lost: float = 0.004
    resent: float = 0.004
    pause: float = 0.06
    pause_steps: int = 120
    linger: float = 0.03  # how often an actor rests at a decisive call, while others go on
    late: float = 0.4  # how often there is an actor that lets the lease run out


CROWD: Final = Profile(writers=(2, 4), rounds=(2, 3), droppers=(2, 3), collectors=(2, 3), crash=0.002, linger=0.06)
PATIENT: Final = Profile(
    writers=(2, 3), droppers=(1, 2), collectors=(1, 1), crash=0, lost=0, resent=0, late=0, pause=0.05, linger=0.15
)
SLOW: Final = Profile(late=1.0, linger=0.1)


class InlineWorkers(Workers):
    """Does the work at once, on the thread that submits it."""

    def __init__(self, threads: int, name: str, *, yielding: bool = False) -> None:
        del name, yielding
        self.threads = threads

    def submit(self, work: Callable[[Item], Result], item: Item) -> Future[Result]:
        future: Future[Result] = Future()
        try:
            future.set_result(work(item))
        except Exception as error:  # noqa: BLE001 - raised to whoever asks for the result, as a pool does
            future.set_exception(error)
        return future

    def ordered(
        self,
        work: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        weigh: Callable[[Item], int],
        limit: int,
        inline: Callable[[Item], bool] | None = None,
    ) -> Iterator[Result]:
        for item in items:
            yield work(item)

    def close(self) -> None:
        """There is nothing to stop."""


class Unreliable(StorageBackend):
    """Loses acknowledgements: a change takes effect and raises, or is sent again by a layer that retries.

    Lingers before the calls that decide something, and after those that others may overtake.
    """

    def __init__(self, inner: StorageBackend, rng: random.Random, profile: Profile) -> None:
        self._inner, self._rng, self._profile = inner, rng, profile
        self._lost, self._resent = profile.lost, profile.resent

    @property
    def url(self) -> str:
        return self._inner.url

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        self._linger(name)
        self._inner.store(name, data, overwrite=overwrite)
        drawn = self._rng.random()
        if drawn < self._lost:
            raise StorageUnavailable(f"no answer for {name}")
        if drawn < self._lost + self._resent:
            self._inner.store(name, data, overwrite=overwrite)

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        return self._inner.retrieve(name, start=start, length=length)

    def delete(self, name: str) -> None:
        self._inner.delete(name)
        if self._rng.random() < self._lost:
            raise StorageUnavailable(f"no answer for {name}")

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        found = self._inner.list(prefix)
        self._linger(prefix)
        return found

    def stat(self, name: str) -> ObjectInfo:
        return self._inner.stat(name)

    def _linger(self, name: str) -> None:
        if name.startswith(_DECISIVE) and self._rng.random() < self._profile.linger:
            for _ in range(self._rng.randint(10, 80)):
                self._inner.exists("turn")


class ScheduledWorld:
    """One store, one clock, one source of chance."""

    def __init__(self, seed: int, profile: Profile, now: datetime = START) -> None:
        self.seed, self.profile = seed, profile
        self.rng = random.Random(seed)
        self.clock = FakeClock(now)
        self.store = MemoryStorage(clock=self.clock)
        self.errors: Counter[str] = Counter()

    def environment(self) -> Environment:
        return Environment(clock=self.clock, random=self.rng.randbytes, process=NOBODY, threads=1, pack_target=1200)

    def open(self, backend: StorageBackend) -> Repository:
        return Repository.open(backend, SECRET, environment=self.environment())

    def interleaving(self) -> Interleaving:
        """The order of calls that the seed and the profile give."""
        profile = self.profile
        return Interleaving(
            self.seed,
            self.store,
            crash_probability=profile.crash,
            pause_probability=profile.pause,
            pause_steps=profile.pause_steps,
        )

    def pass_time(self, backend: StorageBackend) -> None:
        """What an actor does that lets the lease run out."""
        for _ in range(self.rng.randint(1, 3)):
            for _ in range(self.rng.randint(1, 6)):
                backend.exists("time")  # only to wait for a turn
            self.clock.advance(self.rng.choice((600, 4000)))


@contextmanager
def in_small(world: Callable[[], ScheduledWorld | None]) -> Iterator[None]:
    """Small sizes, no threads, chance from the seed of the world of now."""

    def chance(count: int) -> bytes:
        current = world()
        return current.rng.randbytes(count) if current else random.Random(count).randbytes(count)

    defaults: dict[str, Any] = records_module.seal_record.__kwdefaults__ or {}
    with (
        patch.object(blob_writer, "Workers", InlineWorkers),
        patch.object(rewriting_module, "Workers", InlineWorkers),
        patch.object(blob_writer, "SMALL", 200),
        patch.object(blob_writer, "BUNDLE_TARGET", 300),
        patch.object(compaction_module, "MANY_SEGMENTS", 4),
        patch.object(garbage_module, "SMALL_PACK", 600),
        patch.object(garbage_module, "MANY_SMALL", 3),
        patch.dict(defaults, {"random": chance}),
    ):
        yield
