"""Work that tells what was run, and ends when it is let go or asked to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from backstay.control.jobs.port import Claim, Released

PATIENCE_S = 60.0


def eventually(condition: Callable[[], object], what: str = "it") -> None:
    """Wait until something is so."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, f"{what} did not come about"
        time.sleep(0.01)


class Recording:
    """Runs jobs: those named in `held` last until `let_go`, or until they are asked to end."""

    def __init__(self, *held: str) -> None:
        self.begun: list[str] = []
        self.ended: list[tuple[str, str | None]] = []
        self.most_at_once = 0
        self._held = set(held)
        self._open = threading.Event()
        self._lock = threading.Lock()
        self._now = 0

    def let_go(self) -> None:
        self._open.set()

    def __call__(self, claim: Claim) -> None:
        with self._lock:
            self.begun.append(claim.job_id)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            why = self._wait(claim)
        finally:
            with self._lock:
                self._now -= 1
        self.ended.append((claim.job_id, why))
        if why in ("stopping", "lost"):
            raise Released

    def _wait(self, claim: Claim) -> str | None:
        if claim.job_id not in self._held:
            return claim.stop_reason()
        while not self._open.wait(0.02):
            if (why := claim.stop_reason()) is not None:
                return why
        return None
