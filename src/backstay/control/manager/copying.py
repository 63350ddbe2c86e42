"""Bring further copies of the repository up to date."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from backstay.control.manager.documents import Document
from backstay.control.manager.ground import Checkpoint, Ground, go_on
from backstay.control.manager.targets import without_password
from backstay.core.events import EventSink, ignore
from backstay.errors import BackstayError, CorruptedBackup, Interrupted, InvalidRequest
from backstay.errors.documents import problem_document
from backstay.operations.copies.mirror import copy_objects
from backstay.operations.copies.result import CopyResult
from backstay.repository.repository import Repository
from backstay.storage.assembly import assemble

_SHOWN: Final = 100  # of findings that may be many


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedTo:
    """One copy: what was sent, and why it is not up to date."""

    to: str
    made: CopyResult | None = None
    error: BackstayError | None = None


def copies_document(copies: Sequence[CopiedTo]) -> Document:
    """What was done for each copy, and the sums: the result of a job."""
    return {
        "copies": [_document(one) for one in copies],
        "objects": sum(one.made.objects for one in copies if one.made is not None),
        "bytes": sum(one.made.bytes for one in copies if one.made is not None),
        "ok": all(one.error is None for one in copies),
    }


def _document(copy: CopiedTo) -> Document:
    made = copy.made or CopyResult(kind="mirror")
    return {
        "to": copy.to,
        "objects": made.objects,
        "bytes": made.bytes,
        "removed": made.removed,
        "findings": [asdict(finding) for finding in made.findings[:_SHOWN]],
        "error": None if copy.error is None else problem_document(copy.error),
    }


class Copying(Ground):
    """The part that copies."""

    def copy(
        self,
        to: str | Path | Sequence[str | Path] | None = None,
        *,
        check: bool = True,
        events: EventSink = ignore,
        checkpoint: Checkpoint = go_on,
        job_id: str | None = None,
    ) -> tuple[CopiedTo, ...]:
        """Send to each copy what it lacks, bit by bit, and remove there what the repository has deleted.

        Without `to` these are the `copies` of the policy file; else empty stores, or copies that were made before. One
        that fails does not keep the others from being made. What was sent is there; the next call sends the rest.

        Raises InvalidRequest where there are none and Interrupted, and with `check` the first failure of a copy;
        without it, that is told by the results.
        """
        addresses = self._copies(to)
        arguments = {"to": [without_password(address) for address in addresses]}
        with self.records.run("copy", arguments, job_id=job_id, scope="/repository") as record:
            with self.first_store.open() as repository:
                done = tuple(self._copy(repository, address, events, checkpoint) for address in addresses)
            record.result = copies_document(done)
            failed = next((one.error for one in done if one.error is not None), None)
            if check and failed is not None:
                raise failed
        return done

    def _copies(self, to: str | Path | Sequence[str | Path] | None) -> tuple[str, ...]:
        """The addresses that are meant. Raises InvalidRequest."""
        given = [] if to is None else [to] if isinstance(to, str | Path) else list(to)
        if found := tuple(os.fspath(place) for place in given) or self._setup.copies:
            return found
        raise InvalidRequest(
            "there is no copy to bring up to date",
            cause="neither a store is named, nor does the policy file name `copies`",
            hint="write them under `backup_manager.storage.copies`, or give `to`",
        )

    def _copy(self, repository: Repository, address: str, events: EventSink, checkpoint: Checkpoint) -> CopiedTo:
        """One copy. Raises Interrupted."""
        checkpoint()
        shown = without_password(address)
        try:
            with assemble(address, clock=self._setup.clock, warn=self._setup.warn) as target:
                made = copy_objects(repository, target, events=events)
        except Interrupted:
            raise
        except BackstayError as error:
            return CopiedTo(to=shown, error=error)
        damaged = CorruptedBackup(
            f"{len(made.findings)} objects are damaged and were not copied to {shown}",
            cause=", ".join(finding.subject for finding in made.findings[:5]),
            hint="mend them with `backstay repair packs`, from a copy if there is one; then copy again",
        )
        return CopiedTo(to=shown, made=made, error=damaged if made.findings else None)
