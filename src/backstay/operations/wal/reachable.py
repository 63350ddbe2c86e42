"""Which files of a cluster's WAL recoveries from some base backups can read."""

from __future__ import annotations

from collections.abc import Iterable

from backstay.operations.wal.coverage import WalCoverage, run_with
from backstay.operations.wal.ways import Way


def reachable(coverage: WalCoverage, ways: Iterable[Way]) -> list[str]:
    """All that recoveries along some ways of a cluster can read: histories, then segments in their order.

    From each base backup on up to the first gap. Raises CorruptedBackup.
    """
    found: dict[str, None] = {file: None for file in coverage.files if file.endswith(".history")}
    for way in ways:
        runs = coverage.runs(way.path)
        for base in way.bases:
            run = run_with(runs, base.start_lsn)
            if run is not None and run.end > base.start_lsn:
                numbers = range(base.start_lsn // coverage.size, (run.end - 1) // coverage.size + 1)
                found.update((coverage.file(way.path, number), None) for number in numbers)
    return list(found)
