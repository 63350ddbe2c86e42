"""Subscribers of events."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest

from backstay.core.events import Event, GarbageCollected, Started, ValidationFailed, name_of
from backstay.core.subscribers import JsonLines, Subscribers

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
COLLECTED = GarbageCollected(time=NOW, snapshots=("01",), values=3)
FAILED = ValidationFailed(time=NOW, snapshot="01", graph="g", node="é", reason="no")


def test_each_gets_the_topics_that_it_wants() -> None:
    subscribers = Subscribers()
    everything: list[Event] = []
    collected: list[Event] = []
    subscribers.subscribe(everything.append)
    subscribers.subscribe(collected.append, "backup.garbage.collected")
    events: list[Event] = [COLLECTED, FAILED, Started(operation="x")]
    for event in events:
        subscribers(event)
    assert everything == events
    assert collected == [COLLECTED]


def test_who_unsubscribed_is_not_told() -> None:
    subscribers = Subscribers()
    told: list[Event] = []
    leave = subscribers.subscribe(told.append)
    subscribers(COLLECTED)
    leave()
    leave()
    subscribers(COLLECTED)
    assert told == [COLLECTED]


def test_one_that_raises_keeps_no_other_from_being_told() -> None:
    subscribers = Subscribers()
    told: list[Event] = []

    def broken(event: Event) -> None:
        raise LookupError(name_of(event))

    subscribers.subscribe(broken)
    subscribers.subscribe(told.append)
    with pytest.raises(LookupError, match=r"backup\.garbage\.collected"):
        subscribers(COLLECTED)
    assert told == [COLLECTED]


def test_events_become_lines_of_json() -> None:
    stream = io.StringIO()
    lines = JsonLines(stream)
    for event in (COLLECTED, FAILED, Started(operation="x")):
        lines(event)
    first, second, third = map(json.loads, stream.getvalue().splitlines())
    assert first == {
        "event": "backup.garbage.collected",
        "time": "2026-01-01T12:00:00.000000Z",
        "snapshots": ["01"],
        "values": 3,
    }
    assert (second["event"], second["node"]) == ("backup.validation.failed", "é")
    assert third["event"] == "started"
