"""Who somebody is: by a token, one read of the catalog, the same for unknown tokens and for wrong ones."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from backstay.catalog.models import AgentCertificate, Binding, Token, User
from backstay.control.access.denied import unrecognised
from backstay.control.access.networks import is_from
from backstay.control.access.principal import Grant, Limits, Principal, grants_of_roles, limited
from backstay.control.access.token_text import LONGEST, digest_of
from backstay.control.access.tokens import limits_of

_NOBODY = digest_of("")  # no token has this digest: an empty text is never looked up


@dataclass(frozen=True, kw_only=True, slots=True)
class Recognised:
    """A principal, and when its token was used before."""

    principal: Principal
    last_used_at: datetime | None


_TOKENS = (
    select(
        Token.id,
        Token.secret_digest,
        Token.permissions,
        Token.scopes,
        Token.networks,
        Token.expires_at,
        Token.revoked_at,
        Token.last_used_at,
        User.id.label("user_id"),
        User.name,
        User.kind,
        User.disabled,
        Binding.role,
        Binding.scope,
    )
    .join(User, User.id == Token.user_id)
    .outerjoin(Binding, Binding.user_id == User.id)
)
_BY_DIGEST = _TOKENS.where(Token.secret_digest == bindparam("digest", type_=Token.secret_digest.type))
_BY_ID = _TOKENS.where(Token.id == bindparam("id", type_=Token.id.type))


def recognise_token(connection: Connection, text: str, *, address: str, now: datetime) -> Recognised:
    """Who a token speaks for, at this moment and from this address. Raises Unauthorized."""
    if not 0 < len(text) <= LONGEST:
        raise unrecognised("unknown_token")
    digest = digest_of(text)
    rows = connection.execute(_BY_DIGEST, {"digest": digest}).all()
    kept = rows[0].secret_digest if rows else _NOBODY
    if not hmac.compare_digest(kept, digest):
        raise unrecognised("unknown_token")
    return _judged(rows, address, now)


def _judged(rows: Any, address: str, now: datetime) -> Recognised:  # noqa: ANN401 - rows have no better type
    row = rows[0]
    limits: Limits = limits_of(row)
    if row.revoked_at is not None:
        raise unrecognised("revoked_token")
    if limits.expires_at is not None and limits.expires_at <= now:
        raise unrecognised("expired_token")
    if limits.networks is not None and not is_from(address, limits.networks):
        raise unrecognised("wrong_network")
    if row.disabled:
        raise unrecognised("disabled_user")
    roles = [(row.role, row.scope) for row in rows if row.role is not None]
    principal = Principal(
        user_id=row.user_id,
        name=row.name,
        kind=row.kind,
        grants=limited(grants_of_roles(roles), limits),
        token_id=row.id,
        address=address,
        limits=limits,
    )
    return Recognised(principal=principal, last_used_at=row.last_used_at)


def principal_of(
    session: Session, user: User, *, address: str, more: Iterable[Grant] = (), certificate: str | None = None
) -> Principal:
    """A user who proved in another way who it is, with what that way grants besides.

    Raises Unauthorized for a disabled one.
    """
    if user.disabled:
        raise unrecognised("disabled_user")
    rows = session.execute(select(Binding.role, Binding.scope).where(Binding.user_id == user.id))
    more = tuple(more)
    return Principal(
        user_id=user.id,
        name=user.name,
        kind=user.kind,
        grants=limited((*grants_of_roles((role, scope) for role, scope in rows), *more), Limits()),
        certificate=certificate,
        address=address,
        more=more,
    )


def recognise_again(session: Session, by: Principal, *, now: datetime) -> Principal:
    """What somebody may by now who was recognised before. Raises Unauthorized for whom nothing is left of that."""
    if by.kind == "system":
        return by
    if by.token_id is not None:
        rows = session.execute(_BY_ID, {"id": by.token_id}).all()
        if not rows:
            raise unrecognised("unknown_token")
        return _judged(rows, by.address, now).principal
    if by.certificate is not None:
        row = session.get(AgentCertificate, by.certificate, populate_existing=True)
        if row is None or row.revoked_at is not None or row.expires_at <= now:
            raise unrecognised("bad_certificate")
    user = session.get(User, by.user_id, populate_existing=True)
    if user is None:
        raise unrecognised("disabled_user")
    return principal_of(session, user, address=by.address, more=by.more, certificate=by.certificate)
