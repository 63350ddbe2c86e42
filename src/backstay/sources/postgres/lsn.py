"""Positions in the WAL and the names of its files (PostgreSQL's src/include/access/xlog_internal.h)."""

from __future__ import annotations

import re
from typing import Final

from backstay.errors import InvalidRequest

SEGMENT: Final = 16 << 20  # bytes, unless the cluster was made with another --wal-segsize
PAGE: Final = 8192  # bytes of a WAL page
_SEGMENT_NAME: Final = re.compile(r"[0-9A-F]{24}")


def parse_lsn(text: str) -> int:
    """The position that PostgreSQL writes as `16/B374D848`. Raises InvalidRequest."""
    high, slash, low = text.partition("/")
    try:
        if slash and 0 < len(high) <= 8 and 0 < len(low) <= 8:
            return int(high, 16) << 32 | int(low, 16)
    except ValueError:
        pass  # told below, as for all that is no position
    raise InvalidRequest(
        f"{text!r} is no position in the WAL",
        cause="positions look like 16/B374D848",
        hint="SELECT pg_current_wal_lsn() shows the present one",
    )


def format_lsn(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def segment_name(timeline: int, lsn: int, size: int = SEGMENT) -> str:
    """The file that holds the byte at a position."""
    number, per_id = lsn // size, (1 << 32) // size
    return f"{timeline:08X}{number // per_id:08X}{number % per_id:08X}"


def segment_start(name: str, size: int = SEGMENT) -> int:
    """The position of the first byte of a segment."""
    per_id = (1 << 32) // size
    return (int(name[8:16], 16) * per_id + int(name[16:24], 16)) * size


def timeline_of(name: str) -> int:
    """The timeline of a segment or of a `.history` file."""
    return int(name[:8], 16)


def is_segment(name: str) -> bool:
    """Whether a file is a segment, and not a history, a backup label, or of another database's log."""
    return bool(_SEGMENT_NAME.fullmatch(name))
