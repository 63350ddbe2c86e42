"""Try on a live store what a repository relies on, in a scratch place that is emptied afterwards, and measure it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final, Literal, TypeAlias

from backstay.core.clock import Clock, SystemClock
from backstay.core.events import EventSink, Progress, Started, finished, ignore
from backstay.core.quantities import format_duration
from backstay.errors import BackstayError, InvalidRequest, StorageMissing, StorageRefused, StorageUnavailable
from backstay.storage import promises
from backstay.storage.backend import StorageBackend
from backstay.storage.local import LocalStorage

Need: TypeAlias = Literal["any use", "several writers", "nothing"]
Verdict: TypeAlias = Literal["usable", "limited", "unusable"]

BYTES: Final = 32 << 20  # to move for the figures, each way
PIECE: Final = 8 << 20
CALLS: Final = 20  # of which the median is taken
PARALLEL: Final = 2
_SWEEPS: Final = 2  # a store that lists badly may show some only now
SKEW_S: Final = 300  # up to which a difference of clocks does no harm
_MEANING: Final = (
    ": one of the two clocks is wrong. No data is lost by that, but times of snapshots and ends of locks may be off by "
    "as much, and S3 and Azure refuse all requests from 15 minutes on; let both machines set their clocks by NTP"
)
_UNDECIDED: Final = "it knows no way to let one of two programs win; among its own calls this one sees to it"
_SYSTEM_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One thing that was tried; `needed_for` says what it takes away if it is not so."""

    name: str
    ok: bool
    needed_for: Need
    details: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Seconds of one small call, in the median; bytes per second of large objects, two at a time."""

    put_latency_s: float
    get_latency_s: float
    put_rate: float
    get_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageReport:
    """What a store can and cannot do; no figures where it is unusable."""

    address: str
    points: tuple[Point, ...]
    figures: Figures | None

    @property
    def verdict(self) -> Verdict:
        """usable: for several writers at once; limited: for one at a time; unusable: not for a repository."""
        lacking = {point.needed_for for point in self.points if not point.ok}
        return "unusable" if "any use" in lacking else "limited" if "several writers" in lacking else "usable"


def _races_are_decided(backend: StorageBackend, place: str) -> str:
    """Also between programs: what one program decides among its own threads proves nothing of others."""
    undecided = "" if backend.capabilities.atomic_create else _UNDECIDED
    return promises.races_have_one_winner(backend, place) or undecided


_Promise: TypeAlias = Callable[[StorageBackend, str], str]
_PROMISES: Final[tuple[tuple[str, Need, _Promise], ...]] = (
    ("gives back what was stored", "any use", promises.content_comes_back),
    ("takes objects as large as packs", "any use", promises.takes_packs),
    ("says what is absent", "any use", promises.absence_is_told),
    ("gives exact parts of objects", "any use", promises.ranges_are_exact),
    ("refuses parts behind the end", "any use", promises.bad_ranges_are_refused),
    ("lists all objects at once", "any use", promises.listings_are_complete),
    ("overwrites when asked to", "any use", promises.overwriting_replaces),
    ("deletes", "any use", promises.what_is_deleted_is_gone),
    ("creates a name only once", "several writers", promises.written_once),
    ("decides races", "several writers", _races_are_decided),
)


def check_storage(
    backend: StorageBackend,
    *,
    size: int = BYTES,
    events: EventSink = ignore,
    clock: Clock = _SYSTEM_CLOCK,
    rng: random.Random | None = None,
) -> StorageReport:
    """Try everything, and clean up but for what stays locked, which is told.

    Raises StorageUnavailable when the store cannot be reached or refuses us.
    """
    place = f"check-{(rng or random.SystemRandom()).getrandbits(64):016x}"
    events(Started(operation="check-storage"))
    stuck: set[str] = set()
    with _made_for_now(backend) as missing, _emptied(backend, place, stuck) as scratch:
        points = [*_place(missing), *_try_promises(scratch, place, events), _checksum(scratch, place)]
        points += [_skew(scratch, place, clock), *_locks(scratch, f"{place}/locked", stuck)]
        report = StorageReport(address=backend.url, points=tuple(points), figures=None)
        if report.verdict != "unusable":
            figures = _measure(scratch, f"{place}/speed", size, clock, events)
            report = StorageReport(address=backend.url, points=report.points, figures=figures)
    finished(events, "check-storage")
    return report


@contextmanager
def _made_for_now(backend: StorageBackend) -> Iterator[Path | None]:
    """The first directory on the way that was not there, if one was not; afterwards it is not there again."""
    path = Path(backend.url) if isinstance(backend, LocalStorage) else None
    missing = [] if path is None else [each for each in (path, *path.parents) if not each.exists()]
    try:
        yield missing[-1] if missing else None
    finally:
        for each in missing:
            with suppress(OSError):  # somebody else may use it by now
                each.rmdir()


def _place(missing: Path | None) -> Iterator[Point]:
    if missing is not None:
        details = f"{missing} was made for this and is gone again: tried was the disk that {missing.parent} is on"
        yield Point(name="is there already", ok=False, needed_for="nothing", details=details)


@contextmanager
def _emptied(backend: StorageBackend, place: str, stuck: Collection[str]) -> Iterator[StorageBackend]:
    """The store; afterwards it holds nothing at the place but what cannot be deleted by then."""
    try:
        yield backend
    except BaseException:
        with suppress(BackstayError):  # what went wrong first says more
            _empty(backend, place, stuck)
        raise
    _empty(backend, place, stuck)


def _empty(backend: StorageBackend, place: str, stuck: Collection[str]) -> None:
    for _ in range(_SWEEPS):
        names = {info.name for info in backend.list(f"{place}/")}.difference(stuck)
        with ThreadPoolExecutor(8) as pool:
            [*pool.map(backend.delete, names)]
    if isinstance(backend, LocalStorage):  # where empty directories stay
        shutil.rmtree(Path(backend.url) / place, ignore_errors=True)


def _try_promises(backend: StorageBackend, place: str, events: EventSink) -> Iterator[Point]:
    for number, (name, need, promise) in enumerate(_PROMISES):
        events(Progress(files=number, bytes=0, current=name))
        try:
            broken = promise(backend, f"{place}/{number}")
        except (StorageMissing, StorageRefused):
            raise
        except StorageUnavailable as error:
            if number == 0:  # then it is not this promise, but the store
                raise
            broken = str(error)
        yield Point(name=name, ok=not broken, needed_for=need, details=broken)


def _checksum(backend: StorageBackend, place: str) -> Point:
    refuses = backend.refuses_damage(f"{place}/damaged")
    details = "" if refuses else "damage on the way is noticed when the data is read, not when it is stored"
    return Point(name="checks what arrives by its checksum", ok=refuses, needed_for="nothing", details=details)


def _locks(backend: StorageBackend, name: str, stuck: set[str]) -> Iterator[Point]:
    """Whether it can lock, where its address says for how long: else no record could be stored there.

    And whether it hides what is deleted while it is locked, as a collection deletes. If not, the object is `stuck`.
    """
    point = partial(Point, name="locks objects")
    try:
        if (retention := backend.retention()) is None:
            return
    except InvalidRequest as error:  # what it takes to ask is not installed
        yield point(ok=False, needed_for="nothing", details=f"that cannot be tried out: {error}; {error.hint}")
        return
    backend.store(name, b"")
    try:
        retention.try_out(name)
    except InvalidRequest as error:
        yield point(ok=False, needed_for="any use", details=f"{error}; {error.hint}")
    except StorageRefused as error:
        yield point(ok=False, needed_for="nothing", details=f"that cannot be tried out: {error}")
    else:
        yield point(ok=not (refused := _refused(backend, name, stuck)), needed_for="any use", details=refused)


def _refused(backend: StorageBackend, name: str, stuck: set[str]) -> str:
    """Why what is locked cannot be deleted, or ""."""
    try:
        backend.delete(name)
    except StorageRefused as error:
        stuck.add(name)
        return f"{error}; {error.hint}. {name} stays: delete it when its lock has ended, in a minute"
    return ""


def _skew(backend: StorageBackend, place: str, clock: Clock) -> Point:
    """How far the store's clock is from ours, not counting the time that asking took and parts of a second."""
    before = clock.now_ns() // 10**9
    told = _store_time(backend, f"{place}/clock")
    after = clock.now_ns() // 10**9
    skew = max(before - told, told - after, 0)
    details = f"it is {format_duration(skew)} {'behind' if told < before else 'ahead'}" if skew else ""
    if not told:
        details = "it does not tell when an object was stored, nor what time it is"
    elif skew > SKEW_S:
        details += _MEANING
    return Point(name="has the same time as this machine", ok=skew <= SKEW_S, needed_for="nothing", details=details)


def _store_time(backend: StorageBackend, name: str) -> int:
    """Seconds since 1970 by the store's clock, 0 if it does not tell."""
    told = backend.clock_ns()
    if told is None:
        backend.store(name, b"")
        told = backend.stat(name).modified_ns
    return told // 10**9


def _measure(backend: StorageBackend, place: str, size: int, clock: Clock, events: EventSink) -> Figures:
    """Small calls one after the other, then large ones two at a time; the data cannot be compressed on the way."""
    events(Progress(files=len(_PROMISES), bytes=0, current="speed"))
    names = [f"{place}/small-{number}" for number in range(CALLS)]
    puts = [_seconds(partial(backend.store, name, b"1234567890"), clock) for name in names]
    gets = [_seconds(partial(backend.retrieve, name), clock) for name in names]
    piece = random.randbytes(min(PIECE, size))  # noqa: S311 - not secret
    large = [f"{place}/large-{number}" for number in range(max(1, size // PIECE))]
    with ThreadPoolExecutor(PARALLEL) as pool:
        stored = _seconds(lambda: [*pool.map(lambda name: backend.store(name, piece), large)], clock)
        read = _seconds(lambda: [*pool.map(backend.retrieve, large)], clock)
    moved = len(piece) * len(large)
    return Figures(
        put_latency_s=median(puts), get_latency_s=median(gets), put_rate=moved / stored, get_rate=moved / read
    )


def _seconds(call: Callable[[], object], clock: Clock) -> float:
    before = clock.monotonic()
    call()
    return max(clock.monotonic() - before, 1e-9)
