"""Check backups, and try restores of them."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from backstay.control.evidence.levels import Level, options_of
from backstay.control.manager.checking import RestoreTest, Verification, outcomes
from backstay.control.manager.documents import checks_document
from backstay.control.manager.ground import Ground
from backstay.control.manager.results import CheckOutcome
from backstay.core.arguments import Bounds
from backstay.core.events import EventSink, ignore
from backstay.errors import CorruptedBackup
from backstay.operations.findings import Check
from backstay.operations.verify.run import ALL_CHECKS, VerifyOptions, run_verify


class Verifications(Ground):
    """The part that checks."""

    def verify(
        self,
        backup: str,
        *,
        checks: Sequence[Check] = ALL_CHECKS,
        min_bytes: Annotated[int, Bounds(0)] | str | None = None,
        read_data: float = 0.0,
        restore_test: RestoreTest | str | Path | None = None,
        events: EventSink = ignore,
        job_id: str | None = None,
    ) -> builtins.list[CheckOutcome]:
        """Check what a text means, with one outcome for each check; `min_bytes` may be written as `1MiB`.

        `read_data` is the part of all that the backup consists of which is read, 0 to 1. A restore test really
        restores, below the place that it names, compares and removes it again.

        Raises NotFound, InvalidRequest.
        """
        asked = Verification(checks=checks, min_bytes=min_bytes, read_data=read_data, restore_test=restore_test)
        return self._verified(backup, asked.options(), events, job_id)

    def verify_at(
        self,
        backup: str,
        level: Level,
        *,
        scratch: Path | None = None,
        events: EventSink = ignore,
        job_id: str | None = None,
    ) -> builtins.list[CheckOutcome]:
        """Check as a level says: `metadata`, `integrity`, `full`, or `restore_test` below `scratch`."""
        return self._verified(backup, options_of(level, scratch=scratch), events, job_id)

    def verify_backup(self, backup: str, *, events: EventSink = ignore) -> None:
        """Check everything but the data itself. Raises NotFound, CorruptedBackup for the first that is wrong."""
        for outcome in self.verify(backup, events=events):
            if not outcome.ok:
                raise CorruptedBackup(f"the backup {backup!r} is not good: {outcome.check}", cause=outcome.error)

    def _verified(
        self, backup: str, options: VerifyOptions, events: EventSink, job_id: str | None
    ) -> builtins.list[CheckOutcome]:
        with self.opener.open() as repository:
            ids = [one.id for one in self._meant(repository, backup)]
            kind = "verification" if options.rehearse is None else "rehearsal"
            arguments = {"backups": ids, "checks": list(options.checks), "read_data": options.read_data}
            with self.records.run(kind, arguments, job_id=job_id) as record:  # type: ignore[arg-type]
                record.backup_id = ids[0]
                found = outcomes(run_verify(repository, ids, options, events=events))
                record.result = checks_document(found)
                return found
