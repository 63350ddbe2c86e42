"""From a snapshot's manifest to the row that lists and searches need."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import func
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from backstay.catalog.models import Backup
from backstay.core.clock import datetime_from_ns
from backstay.core.names import printable
from backstay.repository.snapshots.store import Manifest

_ID_TIME_CHARACTERS: Final = 10  # of a ULID: milliseconds since 1970, five bits each
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
# What a manifest says. The other columns are known by the catalog alone, and stay.
_FACTS: Final = (
    "repository", "source", "type", "host", "time", "recorded_at", "description", "tags", "paths", "files", "bytes",
    "stored_bytes", "held", "damaged", "duration_s",
)  # fmt: skip


def row_of(manifest: Manifest, repository: str, *, policy: str | None, held: bool) -> dict[str, Any]:
    """The row of a snapshot that can be read."""
    return {
        "id": manifest.id,
        "repository": repository,
        "policy": policy,
        "source": _text(manifest.name or ""),
        "type": manifest.kind,
        "host": _text(manifest.host)[:255],
        "time": manifest.time,
        "recorded_at": datetime_from_ns(manifest.recorded_ns),
        "description": _text(manifest.description),
        "tags": [_text(tag) for tag in manifest.tags],
        "paths": [printable(path) for path in manifest.paths],
        "files": manifest.stats.files,
        "bytes": manifest.stats.bytes,
        "stored_bytes": manifest.stats.bytes_added,
        "held": held,
        "damaged": False,
        "duration_s": manifest.stats.duration_ns / 1e9,
    }


def row_of_damaged(ulid: str, repository: str, *, held: bool) -> dict[str, Any]:
    """The row of a snapshot that could never be read: nothing is known of it but when it was begun."""
    begun = _begun(ulid)
    return {
        "id": ulid,
        "repository": repository,
        "policy": None,
        "source": "",
        "type": "unknown",
        "host": "",
        "time": begun,
        "recorded_at": begun,
        "description": "",
        "tags": [],
        "paths": [],
        "files": 0,
        "bytes": 0,
        "stored_bytes": 0,
        "held": held,
        "damaged": True,
        "duration_s": None,
    }


def put(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows, or bring those that are there up to date; whoever else adds the same at once does no harm."""
    if not rows:
        return
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(Backup)
    given = {name: getattr(statement.excluded, name) for name in _FACTS}
    given["policy"] = func.coalesce(Backup.policy, statement.excluded.policy)
    session.execute(statement.on_conflict_do_update(index_elements=[Backup.id], set_=given), list(rows))


def _text(text: str) -> str:
    """What both databases take: no null characters, and nothing that is no Unicode."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def _begun(ulid: str) -> datetime:
    milliseconds = 0
    for character in ulid[:_ID_TIME_CHARACTERS]:
        milliseconds = milliseconds << 5 | _ALPHABET.index(character)
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)
