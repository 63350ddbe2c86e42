"""Restores that are tried: each snapshot into an empty directory, which is compared and removed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from backstay.core.events import EventSink
from backstay.core.quantities import plural
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.operations.verify.notes import Notes
from backstay.repository.repository import Repository
from backstay.repository.snapshots import Manifest


def rehearse(
    repository: Repository, manifests: Iterable[Manifest], place: Path, notes: Notes, events: EventSink
) -> None:
    """Really restore, into an empty directory below `place`, and compare every file's SHA-256."""

    def look() -> str:
        files = 0
        place.mkdir(parents=True, exist_ok=True)
        for manifest in manifests:
            with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=place) as scratch:
                result = run_restore(repository, manifest, Path(scratch), RestoreOptions(verify=True), events=events)
            files += result.verified
            for item in result.errors:
                notes.find("rehearsal", f"snapshot {manifest.id}: {item.path}", item.message)
        return f"{plural(files, 'file')} restored and compared"

    notes.check("rehearsal", look)
