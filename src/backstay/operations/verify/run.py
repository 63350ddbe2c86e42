"""Verify a repository: every object is what its name says, every snapshot has all that it needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from backstay.core.arguments import Bounds, checks_arguments
from backstay.core.events import EventSink, finished, ignore
from backstay.core.pipeline import Workers
from backstay.core.quantities import format_count, plural
from backstay.errors import BackstayError, CorruptedBackup, InsufficientSpace
from backstay.operations.findings import Check, Finding
from backstay.operations.verify.bad_packs import BadPacks
from backstay.operations.verify.logs import WalChecks
from backstay.operations.verify.notes import CheckResult, Notes
from backstay.operations.verify.objects import StoredObjects
from backstay.operations.verify.reading import Reading
from backstay.operations.verify.signatures import Signatures
from backstay.operations.verify.trial import Rehearsed, Trial
from backstay.operations.verify.values import ValuesChecks
from backstay.operations.verify.walking import Walking
from backstay.repository.index.index import PackInfo
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest

ALL_CHECKS: Final[tuple[Check, ...]] = ("integrity", "completeness", "size", "signature")


@checks_arguments
@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """What to verify. `read_data` is the part of all packs to read, 0 to 1; `min_bytes` applies to each snapshot.

    With `rehearse` snapshots are restored below that directory, and asked what `trial` holds. `reserve` says that room
    for a full disk was set aside in this repository, as the command line does: whoever removes it is told of.
    """

    checks: tuple[Check, ...] = ALL_CHECKS
    read_data: Annotated[float, Bounds(0, 1)] = 0.0
    min_bytes: Annotated[int, Bounds(0)] | None = None
    rehearse: Path | None = None
    trial: Trial | None = None
    reserve: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """All outcomes; sizes in bytes. Packs and objects of WAL are counted each by themselves.

    `rehearsals` has one entry for each snapshot that was restored; what failed there is in the findings too.
    """

    results: tuple[CheckResult, ...]
    findings: tuple[Finding, ...]
    snapshots: int
    packs: int
    packs_read: int
    bytes_read: int
    wal_objects: int = 0
    wal_read: int = 0
    rehearsals: tuple[Rehearsed, ...] = ()

    @property
    def ok(self) -> bool:
        return self.failure is None

    @property
    def failure(self) -> BackstayError | None:
        """What the errors among the findings come to: damage, or nothing worse than rehearsals that had no room."""
        wrong = [finding for finding in self.findings if finding.severity == "error"]
        if not wrong:
            return None
        cause = f"{wrong[0].subject}: {wrong[0].message}"
        if len(wrong) > sum(outcome.lacks_room for one in self.rehearsals for outcome in one.outcomes):
            return CorruptedBackup("the verification found mistakes", cause=cause)
        return InsufficientSpace("the rehearsal could not be made", cause=cause, hint=wrong[0].hint)


def run_verify(
    repository: Repository,
    snapshots: Iterable[str] | None = None,
    options: VerifyOptions | None = None,
    *,
    events: EventSink = ignore,
) -> VerifyReport:
    """Check everything, or what the named snapshots need; problems are findings, not exceptions."""
    with repository.passing_unreadable():
        return _Verify(repository, options or VerifyOptions(), events).run(
            None if snapshots is None else set(snapshots)
        )


@dataclass(slots=True)
class _Verify:
    repository: Repository
    options: VerifyOptions
    events: EventSink
    notes: Notes = field(init=False)
    bad: BadPacks = field(init=False)
    walking: Walking = field(init=False)
    reading: Reading = field(init=False)
    logs: WalChecks = field(init=False)

    def __post_init__(self) -> None:
        self.notes = Notes(self.options.checks, self.repository.clock)
        self.bad = BadPacks(self.repository, self.notes)
        self.walking = Walking(self.repository, self.notes, self.bad, self.options.read_data >= 1)
        self.reading = Reading(self.repository, self.notes, self.bad, self.events, self.options.read_data)
        self.logs = WalChecks(self.repository, self.notes, self.events)

    def run(self, wanted: set[str] | None) -> VerifyReport:
        signatures = Signatures(self.repository, self.notes)
        signatures.keys()
        manifests = signatures.manifests(wanted)
        packs = StoredObjects(self.repository, self.notes, self.bad).packs(with_reserve=self.options.reserve)
        if wanted is None and self.options.read_data > 0:
            self._read_and_walk(manifests, packs)
        else:
            used = self.walking.completeness(manifests, self.events)
            needed = packs if wanted is None else {n: p for n, p in packs.items() if n in used}
            self.reading.integrity(needed)
        self.walking.hit_by_bad_packs(manifests, self.events)
        self.logs.run(manifests, self.reading.sample, everything=wanted is None)
        ValuesChecks(self.repository, self.notes).run(manifests, everything=wanted is None)
        if "size" in self.options.checks and self.options.min_bytes is not None:
            self._sizes(manifests, self.options.min_bytes)
        rehearsals: tuple[Rehearsed, ...] = ()
        if self.options.rehearse is not None:
            from backstay.operations.verify.rehearsal import rehearse  # with all that can restore: most need none of it

            place, trial = self.options.rehearse, self.options.trial
            rehearsals = rehearse(self.repository, manifests, place, self.notes, self.events, trial)
        finished(self.events, "verify")
        return VerifyReport(
            results=self.notes.results(),
            findings=tuple(self.notes.findings),
            snapshots=len(manifests),
            packs=len(packs),
            packs_read=self.reading.packs,
            bytes_read=self.reading.bytes,
            wal_objects=self.logs.objects,
            wal_read=self.logs.read,
            rehearsals=rehearsals,
        )

    def _read_and_walk(self, manifests: list[Manifest], packs: dict[int, PackInfo]) -> None:
        """Read packs, which is work for the processors, while one thread walks the listings."""
        with Workers(1, "packs") as background:
            reading = background.submit(self.reading.integrity, packs)
            self.walking.completeness(manifests, ignore)
            reading.result()

    def _sizes(self, manifests: list[Manifest], least: int) -> None:
        def look() -> str:
            for manifest in manifests:
                if manifest.stats.bytes < least:
                    self.notes.find(
                        "size",
                        f"snapshot {manifest.id}",
                        f"it holds {plural(manifest.stats.bytes, 'byte')}, not {format_count(least)}",
                    )
            return f"{plural(len(manifests), 'snapshot')}, at least {plural(least, 'byte')} each"

        self.notes.check("size", look)
