"""Tokens: made, shown once, recognised by their digest, revoked at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from backstay.catalog.models import Token, User
from backstay.control.access import authority
from backstay.control.access.networks import is_part_of, parse_network
from backstay.control.access.permissions import parse_permission
from backstay.control.access.principal import Limits, Principal
from backstay.control.access.scopes import EVERYTHING, covers, outermost, parse_scope
from backstay.control.access.token_text import digest_of, new_token, new_token_id
from backstay.control.access.turns import take_turn
from backstay.control.access.users import Users, find_user
from backstay.core.clock import Clock
from backstay.core.ids import Random
from backstay.errors import Forbidden, InvalidRequest, NotFound

_LONGEST_NAME: Final = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenView:
    """A token as its owner may see it; its text is known to nobody but who has it."""

    id: str
    user: str
    name: str
    limits: Limits
    created_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeToken:
    """A new token, at the only moment at which its text is known."""

    token: TokenView
    text: str = field(repr=False)


class Tokens:
    """The tokens of a catalog. Each change is part of the caller's transaction, with its line in the audit log."""

    def __init__(self, clock: Clock, random: Random, users: Users) -> None:
        self._clock, self._random, self._users = clock, random, users

    def create(
        self,
        session: Session,
        *,
        by: Principal,
        name: str,
        user: str | None = None,
        permissions: Iterable[str] | None = None,
        scopes: Iterable[str] | None = None,
        networks: Iterable[str] | None = None,
        expires_at: datetime | None = None,
    ) -> MadeToken:
        """A token for oneself (`token:self`) or for a user whom one manages.

        A token that makes another one gives no more than it has: limits that are not named are its own. One for another
        user stays within what its maker manages, whatever that user may later.

        Raises Forbidden, NotFound, InvalidRequest.
        """
        take_turn(session)
        owner = self._owner(session, by, user)
        own = by.limits if owner.id == by.user_id else replace(by.limits, scopes=_managed_scopes(by))
        limits = _narrowed(_checked(permissions, scopes, networks, expires_at), own)
        if limits.expires_at is not None and limits.expires_at <= self._clock.now():
            raise InvalidRequest("the token would never be valid", cause="the time of its end has passed")
        made = new_token(self._random)
        row = self._add(session, owner, made.id, name, digest_of(made.text), limits)
        return MadeToken(token=_view(row, owner.name), text=made.text)

    def add_known(self, session: Session, *, owner: User, name: str, text: str) -> TokenView:
        """Keep a token that was made elsewhere, without limits."""
        return _view(self._add(session, owner, new_token_id(self._random), name, digest_of(text), Limits()), owner.name)

    def of(self, session: Session, *, by: Principal, user: str | None = None) -> list[TokenView]:
        """The tokens of a user, or one's own, the newest first. Raises Forbidden, NotFound."""
        owner = self._owner(session, by, user)
        rows = session.scalars(
            select(Token).where(Token.user_id == owner.id).order_by(Token.created_at.desc(), Token.id)
        )
        return [_view(row, owner.name) for row in rows]

    def of_all(self, session: Session, *, by: Principal) -> list[TokenView]:
        """The tokens of all users, by user. Raises Forbidden."""
        authority.demand_everything(by)
        rows = session.execute(
            select(Token, User.name)
            .join(User, User.id == Token.user_id)
            .order_by(User.name, Token.created_at.desc(), Token.id)
        )
        return [_view(row, name) for row, name in rows]

    def revoke(self, session: Session, *, by: Principal, token_id: str) -> TokenView:
        """Make a token worthless from now on; one that is revoked stays so. Raises NotFound, Forbidden."""
        take_turn(session)
        row = session.get(Token, token_id, populate_existing=True)
        owner = None if row is None else session.get(User, row.user_id)
        if row is None or owner is None:
            raise NotFound(f"there is no token {token_id[:80]!r}", hint="`backstay token list` shows the tokens")
        self._demand_over(session, by, owner)
        row.revoked_at = row.revoked_at or self._clock.now()
        session.flush()
        return _view(row, owner.name)

    def note_use(self, session: Session, token_id: str, at: datetime) -> None:
        """Remember when a token was used last."""
        session.execute(update(Token).where(Token.id == token_id).values(last_used_at=at))

    def _owner(self, session: Session, by: Principal, user: str | None) -> User:
        """Whose tokens are meant, if `by` may deal with them."""
        try:
            owner = find_user(session, by.user_id if user is None else user)
        except NotFound:
            authority.demand_somewhere(by, "user:admin")  # before telling who is there and who is not
            raise
        self._demand_over(session, by, owner)
        return owner

    def _demand_over(self, session: Session, by: Principal, owner: User) -> None:
        """Raise Forbidden unless `by` may deal with the tokens of this user."""
        if owner.id == by.user_id:
            authority.demand_somewhere(by, "token:self")
        else:
            self._users.require_power(by, self._users.get(session, owner.id))

    def _add(self, session: Session, owner: User, id_: str, name: str, digest: str, limits: Limits) -> Token:
        if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
            raise InvalidRequest("the token needs a name", hint="say in a few words what it is for")
        row = Token(
            id=id_,
            user_id=owner.id,
            name=name,
            secret_digest=digest,
            permissions=_listed(limits.permissions),
            scopes=_listed(limits.scopes),
            networks=_listed(limits.networks),
            created_at=self._clock.now(),
            expires_at=limits.expires_at,
        )
        session.add(row)
        session.flush()
        return row


def limits_of(row: Any) -> Limits:  # noqa: ANN401 - a Token, or a row with its columns
    """What a token is limited to."""
    return Limits(
        permissions=None if row.permissions is None else frozenset(row.permissions),
        scopes=None if row.scopes is None else tuple(row.scopes),
        networks=None if row.networks is None else tuple(row.networks),
        expires_at=row.expires_at,
    )


def _managed_scopes(by: Principal) -> tuple[str, ...] | None:
    """Where `by` manages users; None for everywhere."""
    found = by.scopes("user:admin")
    return None if found == (EVERYTHING,) else found


def _checked(
    permissions: Iterable[str] | None,
    scopes: Iterable[str] | None,
    networks: Iterable[str] | None,
    expires_at: datetime | None,
) -> Limits:
    if expires_at is not None and expires_at.tzinfo is None:
        raise InvalidRequest("the end of the token has no zone", hint="write it like 2027-01-31T12:00:00Z")
    return Limits(
        permissions=None if permissions is None else frozenset(map(parse_permission, permissions)),
        scopes=None if scopes is None else outermost(map(parse_scope, scopes)),
        networks=None if networks is None else tuple(sorted(set(map(parse_network, networks)))),
        expires_at=expires_at,
    )


def _narrowed(wanted: Limits, own: Limits) -> Limits:
    """What was asked for within one's own limits. Raises Forbidden for what lies outside."""
    made = Limits(
        permissions=own.permissions if wanted.permissions is None else wanted.permissions,
        scopes=own.scopes if wanted.scopes is None else wanted.scopes,
        networks=own.networks if wanted.networks is None else wanted.networks,
        expires_at=own.expires_at if wanted.expires_at is None else wanted.expires_at,
    )
    for what, fits in (
        ("permissions", own.permissions is None or (made.permissions or frozenset()) <= own.permissions),
        ("scopes", own.scopes is None or all(any(covers(o, s) for o in own.scopes) for s in made.scopes or ())),
        ("networks", own.networks is None or all(is_part_of(n, own.networks) for n in made.networks or ())),
        ("end", own.expires_at is None or (made.expires_at is not None and made.expires_at <= own.expires_at)),
    ):
        if not fits:
            raise Forbidden(
                "nobody makes a token that may more than they do",
                cause=f"the {what} of the new one lie outside of their own",
                reason="missing_permission",
            )
    return made


def _listed(values: Iterable[str] | None) -> list[str] | None:
    return None if values is None else sorted(values)


def _view(row: Token, user: str) -> TokenView:
    return TokenView(
        id=row.id,
        user=user,
        name=row.name,
        limits=limits_of(row),
        created_at=row.created_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
