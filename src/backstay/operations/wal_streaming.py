"""One stream of WAL: what comes goes to be stored, and the server hears what is durable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from backstay.core.clock import Clock
from backstay.core.events import EventSink, Warned
from backstay.operations.wal_storing import Assembler, Piece, Storing
from backstay.sources.postgres.receiver import Asked, Data, Ended, WalStream

Stopped: TypeAlias = Callable[[], bool]  # whether somebody asked to stop
STATUS_S: Final = 10.0  # between reports, at most
LOOK_S: Final = 0.2  # between looks at what else there is to do
DRAIN_S: Final = 20.0  # how long one that is asked to stop waits for the store


@dataclass(slots=True, kw_only=True)
class Streaming:
    """Runs on the thread that receives; cuts parts and reports at least so often as is said, in seconds.

    No position before `not_before` is reported: the slot begins there already.
    """

    stream: WalStream
    assembler: Assembler
    storing: Storing
    every: float
    report_every: float
    clock: Clock
    stopped: Stopped
    events: EventSink
    not_before: int
    _cut_at: float = field(init=False)
    _reported_at: float = field(init=False)
    _reported: int = 0
    _is_asked: bool = False

    def __post_init__(self) -> None:
        self._cut_at = self._reported_at = self.clock.monotonic()

    def run(self) -> Ended | None:
        """Until the server ends the stream, or somebody asks to stop; then None.

        Whatever ends it, what was received goes to be stored.
        """
        try:
            while not self.stopped():
                self.storing.check()
                if not self.storing.has_room:
                    self.storing.wait(LOOK_S)
                elif (ended := self._take_next()) is not None:
                    return ended
                self._report_if_due()
        finally:
            self._offer(self.assembler.cut())
        self._finish()
        return None

    def _take_next(self) -> Ended | None:
        message = self.stream.next(LOOK_S)
        if isinstance(message, Ended):
            return message
        if isinstance(message, Data):
            for piece in self.assembler.add(message.lsn, message.data):
                self._offer(piece)
        elif isinstance(message, Asked):
            self._is_asked = True
            self._cut()  # a server that shuts down waits until all is durable
        if self.clock.monotonic() - self._cut_at >= self.every and self.storing.is_idle:
            self._cut()
        return None

    def _cut(self) -> None:
        self._cut_at = self.clock.monotonic()
        self._offer(self.assembler.cut())

    def _offer(self, piece: Piece | None) -> None:
        if piece is not None:
            self.storing.offer(piece)

    def _report_if_due(self) -> None:
        is_late = self.clock.monotonic() - self._reported_at >= self.report_every
        if self._is_asked or is_late or self.storing.durable > self._reported:
            self._report()

    def _report(self) -> None:
        durable = self.storing.durable
        self.stream.report(self.assembler.position, durable if durable >= self.not_before else 0)
        self._reported, self._reported_at, self._is_asked = durable, self.clock.monotonic(), False

    def _finish(self) -> None:
        """Wait for the store, say what is durable, and end the stream."""
        until = self.clock.monotonic() + DRAIN_S
        while not self.storing.is_idle and self.clock.monotonic() < until:
            self.storing.check()
            self.storing.wait(LOOK_S)
            self._report_if_due()
        if not self.storing.is_idle:
            self.events(Warned(message="what came last is not stored yet; the server keeps it for the next receiver"))
        self._report()
        self.stream.stop()
