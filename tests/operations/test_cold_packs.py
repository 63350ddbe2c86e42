"""Waiting for frozen packs: how often an archive is asked about them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from backstay.core.events import Event, Progress, ignore
from backstay.operations.tiers.cold_packs import FIRST_POLL_S, LONGEST_POLL_S, POLL_BATCH, ColdPlace
from backstay.storage.archive import Archive, ThawState
from backstay.testing import FakeClock, GlacierStorage

HOUR = 3600.0
MANY = 10 * POLL_BATCH


class CountingStorage(GlacierStorage):
    """Remembers who was asked about when; `slow` packs need twice the time."""

    def __init__(self, clock: FakeClock, slow: frozenset[str] = frozenset()) -> None:
        super().__init__(clock=clock, takes_s=4 * HOUR)
        self.clock, self.slow = clock, slow
        self.asked: Counter[str] = Counter()
        self.rounds: dict[float, int] = {}  # time -> questions at that time

    def state(self, name: str) -> ThawState:
        found = super().state(name)
        if name in self.slow and found == "ready" and self.clock.monotonic() < 8 * HOUR:
            return "thawing"
        return found

    def archive(self) -> Archive:
        store, inner = self, super().archive()

        class Counting(Archive):
            usual_s = inner.usual_s

            def thaw(self, names: object, days: int) -> None:
                inner.thaw(names, days)  # type: ignore[arg-type]

            def thaw_state(self, name: str) -> ThawState:
                now = store.clock.monotonic()
                store.asked[name] += 1
                store.rounds[now] = store.rounds.get(now, 0) + 1
                return inner.thaw_state(name)

            def holds(self, name: str, data: bytes) -> bool:
                return inner.holds(name, data)

        return Counting()


def thawed(store: CountingStorage, events: list[Event] | None = None) -> None:
    """Ask for all packs and wait, without the questions that a plan asks."""
    packs = {info.name: info.size for info in store.list("packs/")}
    place = ColdPlace("memory:", packs, store, None)
    need = place.look_at(packs)
    store.asked.clear()
    store.rounds.clear()
    place.make_readable(need, store.clock, days=7, wait=True, events=events.append if events is not None else ignore)


def filled(slow: int = 0) -> CountingStorage:
    names = [f"packs/00/{number:064x}" for number in range(MANY)]
    store = CountingStorage(FakeClock(), frozenset(names[:slow]))
    for name in names:
        store.store(name, b"pack")
    return store


def test_while_nothing_is_ready_few_are_asked_about() -> None:
    store = filled()
    thawed(store)
    *idle, last = store.rounds.values()
    assert max(idle) == POLL_BATCH
    assert last == MANY


def test_rounds_are_further_and_further_apart() -> None:
    store = filled()
    begun = store.clock.monotonic()
    thawed(store)
    times = [begun, *store.rounds]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[0] >= FIRST_POLL_S
    assert pauses == sorted(pauses)
    assert pauses[-1] <= LONGEST_POLL_S + 1


def test_what_is_ready_is_not_asked_about_again() -> None:
    store = filled(slow=3)
    thawed(store)
    assert store.clock.monotonic() >= 8 * HOUR
    early = [count for name, count in store.asked.items() if name not in store.slow]
    late = [store.asked[name] for name in store.slow]
    assert max(early) < min(late)
    assert store.rounds[max(store.rounds)] == 3


def test_all_is_told_when_it_ends() -> None:
    store, events = filled(), list[Event]()
    thawed(store, events)
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert (last.files, last.bytes) == (MANY, MANY * len(b"pack"))


def test_a_pack_that_the_archive_lost_is_not_waited_for() -> None:
    """Whoever reads it tells which files need it; the others are thawed all the same."""
    store = filled()
    lost, *others = sorted(info.name for info in store.list("packs/"))
    packs = dict.fromkeys([lost, *others], 4)
    store.delete(lost)
    need = ColdPlace("memory:", packs, store, None).look_at(packs)
    assert set(need.frozen) == set(others)
