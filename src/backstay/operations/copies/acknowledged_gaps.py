"""Gaps that somebody acknowledged are known in copies too.

A copy has only the WAL that can be recovered with, so that a gap may be wider there: WAL lies within it that no base
backup leads to. It is acknowledged there if all of it that is missing here is. Records go as they are, too: the copy
may get such WAL from elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection

from backstay.operations.wal.coverage import Gap, WalCoverage
from backstay.repository.wal.store import GapRecord
from backstay.sources.postgres.lsn import is_segment, segment_start


def carry_acknowledgements(here: WalCoverage, there: WalCoverage, wanted: Collection[str]) -> int:
    """Record in a copy who knows of its gaps; how many records that made.

    `wanted` are the files that were to be sent: a gap with one of them is one that nobody has seen. A crash leaves some
    records, and the next copy makes the rest. Raises CorruptedBackup.
    """
    sent = [_stretch(here, file) for file in wanted if is_segment(file)]
    made = sum(map(there.wal.acknowledge_gap, here.wal.acknowledged_gaps(here.system)))
    for timeline in there.timelines:
        runs = here.runs(here.path(timeline))
        ours = here.gaps(timeline)
        for gap in there.gaps(timeline):
            within = [own for own in ours if own.from_lsn < gap.to_lsn and gap.from_lsn < own.to_lsn]
            is_sent = any(gap.from_lsn < end and start < gap.to_lsn for start, end in sent)
            if gap.known is None and within and not is_sent and runs[0].begin <= gap.from_lsn:
                record = _record(here.system, gap, within)
                made += record is not None and there.wal.acknowledge_gap(record)
    return made


def _stretch(here: WalCoverage, file: str) -> tuple[int, int]:
    """From where to where a segment has WAL: one that the server did not come to fill ends before the next begins."""
    start, reach = segment_start(file, here.size), here.files[file].reach
    return start, start + (here.size if reach is None else reach)


def _record(system: int, gap: Gap, within: list[Gap]) -> GapRecord | None:
    """Who knows of all that is missing within a gap; None if nobody knows of some of it."""
    known = [own.known for own in within if own.known is not None]
    if len(known) < len(within):
        return None
    return GapRecord(
        system=system,
        from_lsn=gap.from_lsn,
        to_lsn=gap.to_lsn,
        known_ns=max(record.known_ns for record in known),
        who=", ".join(dict.fromkeys(record.who for record in known)),
        reason="; ".join(dict.fromkeys(record.reason for record in known)),
    )
