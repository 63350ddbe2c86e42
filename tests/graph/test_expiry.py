"""Which snapshots of a graph go by themselves."""

from __future__ import annotations

import pytest

from backstay.errors import InvalidRequest
from backstay.trust.quorum import QuorumPolicy
from backstay.trust.validators import Validator
from tests.graph.stored import Stored

DAY = 86400
ANNA = Validator.generate("anna")
POLICY = QuorumPolicy(required=1, validators=[ANNA.public])


def series(stored: Stored, count: int, *, accepted: tuple[int, ...] | None = None, name: str = "g") -> list[str]:
    """A snapshot a day, each with a value of its own."""
    made = []
    for number in range(count):
        stored.clock.advance(DAY)
        graph = stored.graph({"a": b"%d %s" % (number, name.encode())}, name=name)
        manager = stored.manager(graph, quorum=POLICY if accepted is not None else None)
        made.append(manager.create_snapshot().id)
        if accepted is not None and number in accepted:
            manager.attest(made[-1], ANNA)
    return made


def left(stored: Stored, *, quorum: QuorumPolicy | None = None, **expiry: float) -> list[str]:
    """What is left after a collection."""
    manager = stored.manager(quorum=quorum)
    manager.garbage_collect(**expiry)  # type: ignore[arg-type]
    return [told.id for told in manager.list_snapshots()]


def test_the_newest_of_each_graph_stay() -> None:
    stored = Stored()
    one, two = series(stored, 4, name="one"), series(stored, 2, name="two")
    assert left(stored, max_snapshots=2) == [*one[2:], *two]
    assert len([*stored.values.list()]) == 4


def test_old_ones_go_but_never_the_one_in_force() -> None:
    stored = Stored()
    made = series(stored, 4)
    assert left(stored, ttl_days=2.5) == made[1:]
    stored.clock.advance(100 * DAY)
    assert left(stored, ttl_days=2.5) == made[-1:]


def test_only_accepted_ones_are_counted() -> None:
    stored = Stored()
    made = series(stored, 6, accepted=(0, 2, 3))
    assert left(stored, quorum=POLICY, max_snapshots=2) == made[2:]
    assert left(stored, quorum=POLICY, max_snapshots=1) == made[3:]


def test_a_flood_of_pending_ones_leaves_the_accepted_one() -> None:
    stored = Stored()
    made = series(stored, 5, accepted=(0,))
    stored.clock.advance(100 * DAY)
    assert left(stored, quorum=POLICY, max_snapshots=1, ttl_days=10) == made[:1]


def test_values_that_no_snapshot_names_go_only_when_asked_to() -> None:
    stored = Stored()
    series(stored, 1)
    free = stored.values.store(b"in no graph")
    manager = stored.manager()
    assert manager.garbage_collect() == []
    assert manager.plan_collection(unreferenced=True).values == (free,)
    assert manager.garbage_collect(unreferenced=True) == [free]


@pytest.mark.parametrize("expiry", [{"max_snapshots": 0}, {"ttl_days": 0}, {"ttl_days": -1}, {"ttl_days": 1e9}])
def test_rules_that_make_no_sense_are_refused(expiry: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest):
        Stored().manager().garbage_collect(**expiry)  # type: ignore[arg-type]
