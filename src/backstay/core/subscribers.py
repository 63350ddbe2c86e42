"""Who wants to know of which events: functions, and files that get one JSON document a line."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import IO, TypeAlias

from backstay.core.events import Event, name_of

Subscriber: TypeAlias = Callable[[Event], object]


class Subscribers:
    """A sink that passes events on; any thread may call it.

    A subscriber that raises keeps no other from being told; its exception then reaches whoever told the event. What
    the event says has happened all the same.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribed: dict[int, tuple[frozenset[str], Subscriber]] = {}
        self._next = 0

    def subscribe(self, subscriber: Subscriber, *topics: str) -> Callable[[], None]:
        """Call `subscriber` with events of these topics, such as `backup.snapshot.created`, or with all of them.

        What is returned ends the subscription.
        """
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._subscribed[number] = frozenset(topics), subscriber
        return lambda: self._unsubscribe(number)

    def __call__(self, event: Event) -> None:
        name = name_of(event)
        with self._lock:
            wanted = [subscriber for topics, subscriber in self._subscribed.values() if not topics or name in topics]
        failed: Exception | None = None
        for subscriber in wanted:
            try:
                subscriber(event)
            except Exception as error:  # noqa: BLE001 - raised below, once all others were told
                failed = failed or error
        if failed is not None:
            raise failed

    def _unsubscribe(self, number: int) -> None:
        with self._lock:
            self._subscribed.pop(number, None)


class JsonLines:
    """A subscriber that writes each event as one line of JSON: `event` is its topic, times are ISO 8601 in UTC."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        line = json.dumps({"event": name_of(event), **asdict(event)}, default=_plain, ensure_ascii=False)
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    raise TypeError(f"an event cannot hold {type(value).__name__}")
