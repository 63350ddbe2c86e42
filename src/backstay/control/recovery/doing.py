"""One step while it runs: what it may use, and when it has to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from backstay.control.manager.manager import BackupManager
from backstay.core.clock import Clock
from backstay.core.events import Event
from backstay.errors import Interrupted, StepTimeout


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """`backup` is the one that was chosen for the step. `own` says that what lies in its target is its own, of a run
    that was cut short; `writing` notes that from now on. `until` is when its time is up, by the monotonic clock.
    """

    name: str
    manager: BackupManager
    environ: Mapping[str, str] = field(repr=False)
    clock: Clock
    stopped: threading.Event
    backup: str | None
    own: bool
    writing: Callable[[], None]
    until: float | None = None
    job_id: str | None = None

    def checkpoint(self) -> None:
        """Raises Interrupted when the recovery ends, StepTimeout when the step's time is up."""
        if self.stopped.is_set():
            raise Interrupted(f"the step {self.name!r} was stopped", cause="the recovery ends")
        if self.until is not None and self.clock.monotonic() > self.until:
            raise StepTimeout(f"the step {self.name!r} took too long", cause="its time is up")

    def must_end(self) -> bool:
        """Whether `checkpoint` would raise, for those through whom nothing can be raised."""
        try:
            self.checkpoint()
        except (Interrupted, StepTimeout):
            return True
        return False

    def events(self, event: Event) -> None:
        """A sink that stops what sends the events."""
        del event
        self.checkpoint()

    def left(self, otherwise: float) -> float:
        """The seconds that it still has."""
        return otherwise if self.until is None else max(0.0, self.until - self.clock.monotonic())
