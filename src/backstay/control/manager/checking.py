"""Check backups: one outcome for each check, and a restore that is tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backstay.control.manager.results import CheckFailed, CheckOutcome, CheckPassed
from backstay.core.arguments import checks_arguments
from backstay.core.environment import expanded
from backstay.core.sizes import parse_size
from backstay.errors import InvalidRequest
from backstay.operations.findings import Check
from backstay.operations.verify.run import ALL_CHECKS, VerifyOptions, VerifyReport


@checks_arguments
@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreTest:
    """A real restore below `destination`, an empty place of its own there, which is compared and removed."""

    destination: str | Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What to check of a backup. `read_data` is the part of its packs to read, 0 to 1; `min_bytes` as in `1MiB`."""

    checks: Sequence[Check] = ALL_CHECKS
    min_bytes: int | str | None = None
    read_data: float = 0.0
    restore_test: RestoreTest | str | Path | None = None

    def options(self) -> VerifyOptions:
        """The same for the operation. Raises InvalidRequest."""
        test = self.restore_test
        place = test.destination if isinstance(test, RestoreTest) else test
        least = parse_size(self.min_bytes) if isinstance(self.min_bytes, str) else self.min_bytes
        unknown = [check for check in self.checks if check not in ALL_CHECKS]
        if unknown or not self.checks:  # what checks nothing would find nothing wrong
            raise InvalidRequest(
                "it is not clear what to check",
                cause=f"there is no check {unknown[0]!r}" if unknown else "no check is named",
                hint=f"the checks are {', '.join(ALL_CHECKS)}",
            )
        if not 0 <= self.read_data <= 1:
            raise InvalidRequest(
                "it is not clear how much to read",
                cause=f"read_data is {self.read_data}",
                hint="it is a part, from 0 to 1; 0.1 is a tenth",
            )
        checks = tuple(dict.fromkeys((*self.checks, *(("size",) if least is not None else ()))))
        return VerifyOptions(
            checks=checks,
            read_data=self.read_data,
            min_bytes=least,
            rehearse=None if place is None else expanded(Path(place)).absolute(),
            reserve=True,
        )


def outcomes(report: VerifyReport) -> list[CheckOutcome]:
    """One outcome for each check, in their order."""
    found: list[CheckOutcome] = []
    for result in report.results:
        wrong = tuple(one for one in report.findings if one.check == result.check and one.severity == "error")
        if result.ok:
            found.append(CheckPassed(check=result.check, details=result.details))
            continue
        first = f"{wrong[0].subject}: {wrong[0].message}"
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        found.append(CheckFailed(check=result.check, error=first + more, findings=wrong, details=result.details))
    return found
