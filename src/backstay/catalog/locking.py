"""Locks by name, within a transaction: whoever takes one waits until all others who have it are done."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

from backstay.codec.digest import sha256


def take(session: Session, name: str) -> None:
    """Wait for a lock, which is given back at the end of the transaction.

    On SQLite a transaction that may write has the whole catalog anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        number = int.from_bytes(sha256(f"backstay {name}".encode())[:8], "big", signed=True)
        session.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
