"""Who may do what is changed by one transaction after the other: each sees what those before it decided."""

from __future__ import annotations

from sqlalchemy.orm import Session

from backstay.catalog.locking import take


def take_turn(session: Session) -> None:
    """Wait until nobody else changes users, roles, tokens or certificates; until the end of the transaction.

    To be called before anything is read that the change depends on.
    """
    take(session, "access")
