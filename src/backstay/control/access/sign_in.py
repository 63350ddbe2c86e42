"""People whom a provider knows: each has a row, made when they come for the first time.

What their groups allow ends with the provider's token, and is not kept: tokens of the service that they make may what
an administrator granted them by name, and no more.
"""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from backstay.catalog.audit import AuditLog
from backstay.catalog.database import Catalog
from backstay.catalog.models import User
from backstay.control.access.claims import Claims
from backstay.control.access.first_administrator import NAME as ADMINISTRATOR
from backstay.control.access.principal import Principal, the_machine
from backstay.control.access.recognition import principal_of
from backstay.control.access.turns import take_turn
from backstay.control.access.users import Users, is_user_name

_BY_SUBJECT: Final = re.compile(r"oidc-[0-9a-f]{16}")


def signed_in(catalog: Catalog, users: Users, audit: AuditLog, claims: Claims, *, address: str) -> Principal:
    """Who somebody is of whom a provider has said this. Raises Unauthorized for one who is shut out."""
    with catalog.reading() as session:
        user = _known(session, claims)
        if user is not None:
            return principal_of(session, user, address=address, more=claims.grants)
    _add(catalog, users, audit, claims)
    with catalog.reading() as session:
        user = session.scalars(select(User).where(User.subject == claims.subject)).one()
        return principal_of(session, user, address=address, more=claims.grants)


def _known(session: Session, claims: Claims) -> User | None:
    return session.scalar(select(User).where(User.subject == claims.subject))


def _add(catalog: Catalog, users: Users, audit: AuditLog, claims: Claims) -> None:
    with catalog.session() as session:
        take_turn(session)
        if _known(session, claims) is not None:  # their other request was faster
            return
        name = _free_name(session, claims)
        users.add(session, by=the_machine(), name=name, kind="oidc", subject=claims.subject)
        audit.record(
            session,
            actor=name,
            action="user.create",
            object=f"user/{name}",
            reason="the identity provider knows this user, who came for the first time",
        )


def _free_name(session: Session, claims: Claims) -> str:
    """The name that the provider says, unless it is somebody else's here: a name alone proves nothing."""
    name = claims.name
    if name is None or not is_user_name(name) or name == ADMINISTRATOR or _BY_SUBJECT.fullmatch(name):
        return f"oidc-{claims.subject[:16]}"
    taken = session.scalar(select(User.id).where(User.name == name)) is not None
    return f"oidc-{claims.subject[:16]}" if taken else name
