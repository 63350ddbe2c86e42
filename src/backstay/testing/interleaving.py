"""Several programs on one store, their calls ordered by a seed: a concurrency bug found once is found again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, TypeVar

from backstay.errors import BackstayError
from backstay.storage.backend import Buffer, ObjectInfo, StorageBackend
from backstay.testing.faults import CrashPoint

Fate: TypeAlias = Literal["run", "crash_before", "crash_after"]
Actor: TypeAlias = Callable[[StorageBackend], object]
T = TypeVar("T")
_MARKS: Final[Mapping[Fate, str]] = {"run": "", "crash_before": "!before", "crash_after": "!after"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an actor ended: the value it returned, or the error that ended it."""

    value: object = None
    error: BaseException | None = None

    @property
    def crashed(self) -> bool:
        return isinstance(self.error, CrashPoint)


@dataclass(slots=True, eq=False)
class _Seat:
    """One actor's place in the schedule; it runs while it holds the baton, else it waits at its gate."""

    name: str
    gate: threading.Lock = field(default_factory=threading.Lock)
    fate: Fate = "run"
    started: bool = False
    ended: bool = False
    paused_until: int = 0
    outcome: Outcome = Outcome()


class ScheduledBackend(StorageBackend):
    """One actor's view of the shared store: every call waits for its turn, then has its effect alone.

    A listing takes two turns, so that what others do in between is seen in its second half only, as in a store
    that lists by pages. `exists` goes through `stat`. After a crash every call raises CrashPoint.
    """

    def __init__(self, inner: StorageBackend, turn: Callable[[], Fate]) -> None:
        self._inner = inner
        self._turn = turn
        self._dead = False
        self._mutex = threading.Lock()  # an actor's own threads wait for each other
        self.capabilities = inner.capabilities

    @property
    def url(self) -> str:
        return self._inner.url

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        self._step(lambda: self._inner.store(name, data, overwrite=overwrite))

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        return self._step(lambda: self._inner.retrieve(name, start=start, length=length))

    def delete(self, name: str) -> None:
        self._step(lambda: self._inner.delete(name))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        first = self._step(lambda: sorted(self._inner.list(prefix), key=_by_name))
        if len(first) < 2:
            return iter(first)
        page = first[: len(first) // 2]
        rest = self._step(lambda: [info for info in self._inner.list(prefix) if info.name > page[-1].name])
        return iter([*page, *sorted(rest, key=_by_name)])

    def stat(self, name: str) -> ObjectInfo:
        return self._step(lambda: self._inner.stat(name))

    def _step(self, effect: Callable[[], T]) -> T:
        with self._mutex:
            if self._dead:
                raise CrashPoint
            try:
                fate = self._turn()
            except CrashPoint:
                self._dead = True
                raise
            if fate == "run":
                return effect()
            self._dead = True
            if fate == "crash_after":
                with suppress(BackstayError):
                    effect()
            raise CrashPoint


class Interleaving:
    """Runs actors on one backend, one call at a time, in an order that the seed decides.

    At each call any actor that is not paused may be next; it may also crash there (`crash_probability`, only
    the actors in `crashable` if given), before or after the effect of its call, or pause for up to
    `pause_steps` calls of the others. `schedule` keeps what was decided; given as `replay` it decides instead of
    the seed. The same seed gives the same run if actors are deterministic and call from one thread each.
    """

    def __init__(
        self,
        seed: int,
        backend: StorageBackend,
        *,
        crash_probability: float = 0.0,
        crashable: Collection[str] | None = None,
        pause_probability: float = 0.0,
        pause_steps: int = 50,
        replay: Sequence[str] = (),
        max_steps: int = 100_000,
        timeout_s: float = 60.0,
    ) -> None:
        self.seed = seed
        self.schedule: list[str] = []
        self._backend = backend
        self._crash_probability = crash_probability
        self._crashable = crashable
        self._pause_probability = pause_probability
        self._pause_steps = pause_steps
        self._replay = replay
        self._max_steps = max_steps
        self._timeout_s = timeout_s
        self._rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._seats: list[_Seat] = []
        self._finished = threading.Lock()
        self._failure = ""

    def run(self, actors: Mapping[str, Actor]) -> Mapping[str, Outcome]:
        """Run all actors to their ends; how each of them ended.

        A BackstayError or a crash is an outcome. Anything else that an actor raises, such as a failed assertion,
        is raised here when all have ended, with the seed and the schedule as a note.
        """
        self._seats = [_Seat(name) for name in actors]
        self._finished.acquire()
        threads = [
            threading.Thread(target=self._act, args=(seat, actors[seat.name]), name=seat.name, daemon=True)
            for seat in self._seats
        ]
        for seat, thread in zip(self._seats, threads, strict=True):
            seat.gate.acquire()
            thread.start()
        if self._seats:
            self._choose().gate.release()
            self._wait(threads)
        self._raise_failure()
        return {seat.name: seat.outcome for seat in self._seats}

    def describe(self) -> str:
        """What is needed to run this again."""
        return f"seed {self.seed}, schedule {self.schedule!r}"

    def _wait(self, threads: Sequence[threading.Thread]) -> None:
        if not self._finished.acquire(timeout=self._timeout_s):
            raise AssertionError(f"actors wait for something that is not the store: {self.describe()}")
        for thread in threads:
            thread.join()

    def _raise_failure(self) -> None:
        for seat in self._seats:
            error = seat.outcome.error
            if error is not None and not isinstance(error, BackstayError | CrashPoint):
                error.add_note(f"actor {seat.name}: {self.describe()}")
                raise error
        if self._failure:
            raise AssertionError(f"{self._failure}: {self.describe()}")

    # What follows runs in the actors' threads, always in the one that holds the baton.

    def _act(self, seat: _Seat, actor: Actor) -> None:
        seat.gate.acquire()
        seat.started = True
        try:
            seat.outcome = Outcome(value=actor(ScheduledBackend(self._backend, lambda: self._turn(seat))))
        except BaseException as error:  # noqa: BLE001 - kept as the outcome, raised by `run` unless expected
            seat.outcome = Outcome(error=error)
        seat.ended = True
        if all(other.ended for other in self._seats):
            self._finished.release()
        else:
            self._choose().gate.release()

    def _turn(self, seat: _Seat) -> Fate:
        """Let the schedule go on; what is to happen when it is this actor's turn again."""
        chosen = self._choose()
        if chosen is not seat:
            chosen.gate.release()
            seat.gate.acquire()
        if self._failure:
            raise CrashPoint
        return seat.fate

    def _choose(self) -> _Seat:
        step = len(self.schedule)
        if step >= self._max_steps and not self._failure:
            self._failure = f"no end after {step} steps"
        seat, fate = self._replayed(step) if step < len(self._replay) else self._drawn(step)
        seat.fate = fate
        self.schedule.append(seat.name + _MARKS[fate])
        return seat

    def _drawn(self, step: int) -> tuple[_Seat, Fate]:
        alive = [seat for seat in self._seats if not seat.ended]
        awake = [seat for seat in alive if seat.paused_until <= step] or alive
        seat = self._rng.choice(awake)
        if len(awake) > 1 and self._rng.random() < self._pause_probability:
            seat.paused_until = step + self._rng.randint(1, self._pause_steps)
            seat = self._rng.choice([other for other in awake if other is not seat])
        return seat, self._fate(seat)

    def _fate(self, seat: _Seat) -> Fate:
        may_crash = seat.started and (self._crashable is None or seat.name in self._crashable)
        if not may_crash or self._rng.random() >= self._crash_probability:
            return "run"
        return self._rng.choice(("crash_before", "crash_after"))

    def _replayed(self, step: int) -> tuple[_Seat, Fate]:
        name, mark, crash = self._replay[step].partition("!")
        fates = {text: fate for fate, text in _MARKS.items()}
        for seat in self._seats:
            if seat.name == name and not seat.ended:
                return seat, fates[mark + crash]
        self._failure = self._failure or f"the schedule to replay names {name} at step {step}, which does not run"
        return self._drawn(step)


def _by_name(info: ObjectInfo) -> str:
    return info.name
