"""What a verification notes as it goes: findings, and for each check in a line what was looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from backstay.core.clock import Clock
from backstay.errors import BackstayError, CorruptedBackup, ObjectNotFound, ObjectUnreadable
from backstay.operations.findings import Check, Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One check's outcome; `details` says in a line what was looked at.

    Parts of checks may run side by side, so that the durations may be more than that of the whole together.
    """

    check: Check
    ok: bool
    details: str
    duration_s: float = 0.0


@dataclass(slots=True)
class Notes:
    """Of the checks that were asked for; safe from several threads."""

    checks: tuple[Check, ...]
    clock: Clock
    findings: list[Finding] = field(default_factory=list)
    _details: dict[Check, list[str]] = field(default_factory=dict)
    _took: dict[Check, float] = field(default_factory=dict)

    def find(self, check: Check, subject: str, error: BackstayError | str, hint: str = "") -> None:
        """Something is wrong; without a hint the error's own is told."""
        told = error.hint if isinstance(error, BackstayError) and not hint else hint
        self.findings.append(Finding(check=check, severity="error", subject=subject, message=str(error), hint=told))

    def warn(self, check: Check, subject: str, message: str, hint: str = "") -> None:
        """Something that makes no check fail."""
        self.findings.append(Finding(check=check, severity="warning", subject=subject, message=message, hint=hint))

    def check(self, check: Check, work: Callable[[], str]) -> None:
        """Run one step of a check, if that was asked for. Damage that stops it is a finding, and the others follow."""
        if check in self.checks or check == "rehearsal":
            begun = self.clock.monotonic()
            details = self._details.setdefault(check, [])
            try:
                details.append(work())
            except (CorruptedBackup, ObjectNotFound) as error:
                self.find(check, "repository", error)
                details.append("not to the end")
            self._took[check] = self._took.get(check, 0.0) + self.clock.monotonic() - begun

    def guarded(self, check: Check, subject: str, work: Callable[[], None], hint: str) -> None:
        """Work that fails on what is missing, damaged or not given by the disk, and on nothing else."""
        try:
            work()
        except ObjectNotFound as error:
            self.find(check, subject, f"{error.name} is missing", hint)
        except (CorruptedBackup, ObjectUnreadable) as error:
            self.find(check, subject, error, hint)

    def results(self) -> tuple[CheckResult, ...]:
        """One result per check; it is fine if it found no error."""
        failed = {finding.check for finding in self.findings if finding.severity == "error"}
        return tuple(
            CheckResult(
                check=check, ok=check not in failed, details=", ".join(details), duration_s=self._took.get(check, 0.0)
            )
            for check, details in self._details.items()
        )
