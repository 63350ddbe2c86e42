"""Which files of a cluster's WAL recoveries from some base backups can read."""

from __future__ import annotations

from collections.abc import Sequence

from backstay.operations.wal.bases import Base
from backstay.operations.wal.coverage import WalCoverage, run_with


def reachable(coverage: WalCoverage, bases: Sequence[Base]) -> list[str]:
    """All that recoveries from some base backups of a cluster can read: histories, then segments in their order.

    From each of them on up to the first gap, along every timeline. Raises CorruptedBackup.
    """
    found: dict[str, None] = {file: None for file in coverage.files if file.endswith(".history")}
    for timeline in sorted({*coverage.timelines, *(base.timeline for base in bases)}):
        path = coverage.path(timeline)
        runs = coverage.runs(path)
        for base in sorted(bases, key=lambda base: base.start_lsn):
            run = run_with(runs, base.start_lsn) if path.leads_over(base.timeline, base.stop_lsn) else None
            if run is not None and run.end > base.start_lsn:
                numbers = range(base.start_lsn // coverage.size, (run.end - 1) // coverage.size + 1)
                found.update((coverage.file(path, number), None) for number in numbers)
    return list(found)
