"""Acknowledge gaps in the WAL of a cluster: somebody knows of them, and status is quiet about them from then on."""

from __future__ import annotations

from dataclasses import replace

from backstay.errors import NotFound
from backstay.operations.clusters.status import known_system
from backstay.operations.wal.coverage import Gap, WalCoverage
from backstay.repository.repository import Repository
from backstay.repository.wal.store import GapRecord


def acknowledge_gaps(repository: Repository, name: str, *, who: str, reason: str) -> list[Gap]:
    """Record that somebody knows of all gaps there are in the WAL of a name; those that were not known before.

    They stay gaps: windows show them, and nothing is recovered across one. Raises NotFound when there is none.
    """
    system = known_system(repository, name)
    coverage = WalCoverage.load(repository.wal, system)
    found = {(gap.from_lsn, gap.to_lsn): gap for timeline in coverage.timelines for gap in coverage.gaps(timeline)}
    if not found:
        raise NotFound(
            f"no WAL of {name} is missing between what is stored",
            cause="there is no gap to acknowledge",
            hint="`backstay pg windows` shows what can be recovered",
        )
    known_ns = repository.clock.now_ns()
    acknowledged = []
    for gap in found.values():
        record = GapRecord(system, gap.from_lsn, gap.to_lsn, known_ns, who, reason)
        if gap.known is None and repository.wal.acknowledge_gap(record):
            acknowledged.append(replace(gap, known=record))
    return acknowledged
