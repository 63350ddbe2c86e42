"""What a repair did, and what it could not mend."""

from __future__ import annotations

from dataclasses import dataclass, field

from backstay.core.events import EventSink, Warned
from backstay.operations.findings import Check, Finding, Severity


@dataclass(frozen=True, slots=True)
class LostPath:
    """One path that a snapshot no longer holds."""

    snapshot: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairResult:
    """What a repair did; `findings` are what it could not mend, `lost` the files that are gone for good.

    `chunks_lost` counts chunks that no other pack holds, whether or not a snapshot needs them. `waiting_for` are
    writers because of which a later `gc` finishes the work; `collections_mended` are the names of records of
    collections that could not be read.
    """

    packs_indexed: int = 0
    collections_mended: tuple[str, ...] = ()
    segments_removed: int = 0
    packs_removed: tuple[str, ...] = ()
    chunks_saved: int = 0
    chunks_lost: int = 0
    snapshots_replaced: tuple[tuple[str, str], ...] = ()
    snapshots_dropped: tuple[str, ...] = ()
    lost: tuple[LostPath, ...] = ()
    waiting_for: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    objects_healed: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything needed repair."""
        return bool(
            self.packs_indexed
            or self.objects_healed
            or self.collections_mended
            or self.segments_removed
            or self.packs_removed
            or self.snapshots_replaced
            or self.snapshots_dropped
        )


@dataclass(slots=True)
class Findings:
    """Collects what could not be mended, and tells it at once."""

    events: EventSink
    found: list[Finding] = field(default_factory=list)

    def add(self, check: Check, subject: str, error: Exception | str, hint: str = "") -> None:
        self._add(check, "error", subject, str(error), hint)

    def warn(self, check: Check, subject: str, message: str, hint: str = "") -> None:
        """What is not wrong, but limits what is known."""
        self._add(check, "warning", subject, message, hint)

    def _add(self, check: Check, severity: Severity, subject: str, error: str, hint: str) -> None:
        self.found.append(Finding(check=check, severity=severity, subject=subject, message=error, hint=hint))
        self.events(Warned(message=f"{subject}: {error}"))
