"""A lane for each target: its messages go one after the other, and those of other targets do not wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeAlias

from backstay.control.notifying.outbox import Delivered
from backstay.core.clock import Clock

# Sends what is due to a target; it is asked between two messages whether it shall go on.
Deliver: TypeAlias = Callable[[str, Callable[[], bool]], Delivered]


class Lanes:
    """Each target's messages on a thread of their own, and within a process on one at a time.

    A lane that its process does not wait for leaves a claimed message, as a crash does: it is sent again when the
    claim has passed.
    """

    def __init__(self, deliver: Deliver, clock: Clock) -> None:
        self._deliver, self._clock = deliver, clock
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        self._begun: dict[str, _Lane] = {}
        self._ended = threading.Event()

    def run(self, targets: Iterable[str]) -> Delivered:
        """Deliver to these targets and wait for all; what became of it. Raises what a delivery raises."""
        lanes = [self._lane(target) for target in targets]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        return _sum(lanes)

    def begin(self, targets: Iterable[str]) -> Delivered:
        """Begin to deliver to those targets to whom nobody delivers yet, and wait for none.

        What became of those that have ended since the last call. Raises what a delivery raised.
        """
        with self._lock:
            ended = [lane for lane in self._begun.values() if not lane.is_alive()]
            for lane in ended:
                del self._begun[lane.target]
        for target in targets:
            lane = self._lane(target)
            with self._lock:
                if self._ended.is_set() or target in self._begun:
                    continue
                self._begun[target] = lane
                lane.start()
        return _sum(ended)

    def end(self) -> None:
        """Begin no delivery any more, and let those that are on their way be the last."""
        with self._lock:
            self._ended.set()

    def join(self, until: float) -> None:
        """Wait for the deliveries that `begin` has begun, until a time of the monotonic clock."""
        with self._lock:
            lanes = list(self._begun.values())
        for lane in lanes:
            lane.join(max(0.0, until - self._clock.monotonic()))

    def _lane(self, target: str) -> _Lane:
        with self._lock:
            turn = self._turns.setdefault(target, threading.Lock())

        def work() -> Delivered:
            with turn:
                return self._deliver(target, lambda: not self._ended.is_set())

        return _Lane(target, work)


class _Lane(threading.Thread):
    """One delivery. A daemon: a server that does not answer keeps no process from ending."""

    def __init__(self, target: str, work: Callable[[], Delivered]) -> None:
        super().__init__(name=f"backstay-messages-{target}", daemon=True)
        self.target, self._work = target, work
        self.delivered = Delivered()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self.delivered = self._work()
        except BaseException as error:  # noqa: BLE001 - raised where somebody waits or looks
            self.failure = error


def _sum(lanes: Iterable[_Lane]) -> Delivered:
    lanes = list(lanes)
    for lane in lanes:
        if lane.failure is not None:
            raise lane.failure
    return Delivered(
        sent=sum(lane.delivered.sent for lane in lanes),
        failed=sum(lane.delivered.failed for lane in lanes),
        given_up=sum(lane.delivered.given_up for lane in lanes),
    )
