"""The promises of a backend that can be tried on a live store, one function each.

Each works below a place that is free for it (`check-…/…`), and returns how the promise was broken, or "" if it was
kept. What the store says instead of an answer is raised, as always.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from backstay.errors import BackstayError, ObjectExists, ObjectNotFound, StorageUnavailable
from backstay.storage.backend import StorageBackend

KEPT: Final = ""
RACERS: Final = 16
ROUNDS: Final = 4
RANGES: Final = ((0, 0), (0, 1), (0, 1000), (1, 998), (1, 999), (500, 250), (999, 1), (1000, 0))
BAD_RANGES: Final = (
    (0, 1001), (1, 1000), (999, 2), (1000, 1), (1001, 0), (1001, None), (5000, None), (5000, 1), (0, 1 << 62),
)  # fmt: skip
SIZES: Final = (0, 1, 2, 3, 4095, 4096, 4097, 65_535, 65_536, 1 << 20)
PACK: Final = 18 << 20  # bytes; packs are hardly ever larger
_THOUSAND: Final = random.Random(0).randbytes(1000)  # noqa: S311 - repeatable, not secret


def content_comes_back(backend: StorageBackend, place: str) -> str:
    """What was stored is given back, byte for byte, and its size is told."""
    for size in SIZES:
        name, data = f"{place}/{size}", random.Random(size).randbytes(size)  # noqa: S311
        backend.store(name, data)
        if backend.retrieve(name) != data:
            return f"of {size} bytes, other bytes came back"
        if (told := backend.stat(name).size) != size:
            return f"of {size} bytes, it says that there are {told}"
    return KEPT


def takes_packs(backend: StorageBackend, place: str) -> str:
    """An object as large as packs are is stored and comes back: what lies between may let only small ones through."""
    data = (_THOUSAND * (PACK // len(_THOUSAND) + 1))[:PACK]
    backend.store(f"{place}/pack", data)
    return KEPT if backend.retrieve(f"{place}/pack") == data else f"of {PACK} bytes, other bytes came back"


def written_once(backend: StorageBackend, place: str) -> str:
    """A second store under the same name is refused, whatever its content, and changes nothing."""
    name = f"{place}/once"
    backend.store(name, b"first")
    for data in (b"second, longer", b"first", b""):
        try:
            backend.store(name, data)
        except ObjectExists:
            continue
        return "it overwrites an object that it was asked only to create"
    return KEPT if backend.retrieve(name) == b"first" else "it refuses the second object, but keeps it"


def races_have_one_winner(backend: StorageBackend, place: str) -> str:
    """Of several stores under one name at the same time exactly one succeeds, and its content is kept.

    A store that is too busy to tell one of them may say so (a transient error): that is doubt, and no second winner.
    """
    for round_ in range(ROUNDS):
        name = f"{place}/race-{round_}"
        contents = [f"{racer}:".encode() * 500 for racer in range(RACERS)]
        results = together([partial(backend.store, name, data) for data in contents])
        told = [*zip(contents, results, strict=True)]
        winners = [data for data, result in told if result is None]
        unsure = [data for data, result in told if isinstance(result, StorageUnavailable) and result.transient]
        losers = [result for data, result in told if data not in (*winners, *unsure)]
        if len(winners) > 1 or not (winners or unsure):
            return f"{len(winners)} of {RACERS} racing stores succeeded"
        if odd := [result for result in losers if not isinstance(result, ObjectExists)]:
            return f"who lost a race was told: {odd[0]}"
        if backend.retrieve(name) not in (winners or unsure):
            return "the object of a race is not the winner's"
    return KEPT


def races_keep_one_object(backend: StorageBackend, place: str) -> str:
    """Where a store cannot decide races, several may be told that they won, and others fail; one object is kept."""
    for round_ in range(ROUNDS):
        name = f"{place}/race-{round_}"
        contents = [f"{racer}:".encode() * 500 for racer in range(RACERS)]
        results = together([partial(backend.store, name, data) for data in contents])
        winners = [data for data, result in zip(contents, results, strict=True) if result is None]
        odd = [r for r in results if r is not None and not isinstance(r, (ObjectExists, StorageUnavailable))]
        if not winners or odd:
            return f"{len(winners)} of {RACERS} racing stores succeeded, and others were told {odd[:1]}"
        if backend.retrieve(name) not in winners:
            return "the object of a race is not the winner's"
        try:
            backend.store(name, b"late")
        except ObjectExists:
            continue
        return "an object was written twice, long after the first time"
    return KEPT


def ranges_are_exact(backend: StorageBackend, place: str) -> str:
    """Parts of an object are given as they were asked for."""
    backend.store(f"{place}/parts", _THOUSAND)
    for start, length in (*RANGES, *((start, None) for start in (0, 1, 999, 1000))):
        found = backend.retrieve(f"{place}/parts", start=start, length=length)
        if found != _THOUSAND[start:][:length]:
            return f"asked for {length} bytes at {start}, it gave {len(found)} that are not these"
    return KEPT


def bad_ranges_are_refused(backend: StorageBackend, place: str) -> str:
    """A part that the object does not have is an error, never a short answer."""
    backend.store(f"{place}/short", _THOUSAND)
    backend.store(f"{place}/empty", b"")
    for name, start, length in (*(("short", *bad) for bad in BAD_RANGES), ("empty", 0, 1)):
        try:
            backend.retrieve(f"{place}/{name}", start=start, length=length)
        except StorageUnavailable:
            continue
        return f"it gave an answer for {length} bytes at {start}, behind the end"
    return KEPT


def overwriting_replaces(backend: StorageBackend, place: str) -> str:
    """Where overwriting is asked for, the whole object is replaced."""
    name = f"{place}/replaced"
    for data in (b"first", b"second, and longer", b"3rd", b""):
        backend.store(name, data, overwrite=True)
        if backend.retrieve(name) != data or backend.stat(name).size != len(data):
            return "after overwriting, something of the object before is left"
    return KEPT


def listings_are_complete(backend: StorageBackend, place: str, count: int = 300) -> str:
    """What was stored is listed at once, all of it and nothing twice."""
    names = [f"{place}/many/{number % 16:x}/{number:05}" for number in range(count)]
    with ThreadPoolExecutor(8) as pool:
        [*pool.map(lambda name: backend.store(name, b""), names)]
    listed = sorted(info.name for info in backend.list(f"{place}/many/"))
    if len(set(listed)) < len(listed):
        return "a listing names an object twice"
    if missing := set(names).difference(listed):
        return f"a listing lacks {len(missing)} of {count} objects that were just stored"
    return KEPT if listed == sorted(names) else "a listing names objects that nobody stored"


def what_is_deleted_is_gone(backend: StorageBackend, place: str) -> str:
    """A deleted object is neither given nor listed, its neighbour stays, and deleting twice is fine."""
    backend.store(f"{place}/gone", b"x")
    backend.store(f"{place}/gone-not", b"y")
    for _ in range(2):
        backend.delete(f"{place}/gone")
    if backend.exists(f"{place}/gone"):
        return "an object is still there after it was deleted"
    if [info.name for info in backend.list(f"{place}/gone")] != [f"{place}/gone-not"]:
        return "a listing is not up to date after a delete"
    return KEPT


def absence_is_told(backend: StorageBackend, place: str) -> str:
    """An object that was never stored is said to be absent, whole, in parts, and by its size."""
    name = f"{place}/never"
    calls: Sequence[Callable[[], object]] = (
        partial(backend.retrieve, name),
        partial(backend.retrieve, name, start=5, length=5),
        partial(backend.stat, name),
    )
    for call in calls:
        try:
            call()
        except ObjectNotFound:
            continue
        return "it gives an object that was never stored"
    return KEPT


def together(calls: Sequence[Callable[[], object]]) -> list[object]:
    """Results, or the BackstayErrors, of calls that start as close to each other as threads can."""
    barrier = threading.Barrier(len(calls))

    def start(call: Callable[[], object]) -> object:
        barrier.wait()
        try:
            return call()
        except BackstayError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return [*pool.map(start, calls)]
