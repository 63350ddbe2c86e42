"""The hash of an entry of the audit log: SHA-256 over the one before and the entry in canonical JSON (RFC 8785)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import RowMapping

from backstay.codec.canonical_json import canonical
from backstay.codec.digest import sha256

FIRST: Final = "0" * 64  # stands for the entry before the first one
FIELDS: Final = ("seq", "time", "actor", "actor_details", "action", "object", "outcome", "reason", "details")


def entry_hash(row: Mapping[str, Any] | RowMapping) -> str:
    """The hash of a row, which has its `prev_hash`. Raises InvalidRequest for what canonical JSON cannot hold."""
    document = {name: _plain(row[name]) for name in FIELDS}
    return sha256(bytes.fromhex(row["prev_hash"]) + canonical(document, what="an entry of the audit log")).hex()


def _plain(value: Any) -> Any:  # noqa: ANN401 - a column's value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value
