"""Users and tokens for tests."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from backstay.catalog.database import Catalog
from backstay.control.access.access import Access
from backstay.control.access.principal import Principal, the_machine
from backstay.control.access.tokens import MadeToken

HERE = "192.0.2.7"
PASSWORD = "correct horse battery"


def add(
    catalog: Catalog, access: Access, name: str, *roles: tuple[str, str], password: str | None = None, **more: Any
) -> str:
    """A user with roles; its id."""
    by = the_machine()
    kept = None if password is None else access.passwords.hash(password, user=name)
    with catalog.session() as session:
        made = access.users.add(session, by=by, name=name, password_hash=kept, **more)
        for role, scope in roles:
            access.users.grant(session, by=by, name=name, role=role, scope=scope)
    return made.id


def token(
    catalog: Catalog, access: Access, user: str | None, *, by: Principal | None = None, **limits: Any
) -> MadeToken:
    """A token for a user, made by the machine if nobody else is named."""
    with catalog.session() as session:
        return access.tokens.create(session, by=by or the_machine(), user=user, name="for tests", **limits)


def principal(catalog: Catalog, access: Access, user: str, *, address: str = HERE, **limits: Any) -> Principal:
    """Who a new token of a user is taken for."""
    return access.authenticate_bearer(token(catalog, access, user, **limits).text, address)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)
