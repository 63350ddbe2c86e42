"""The first administrator: made when nobody may do everything, with a token that is preset or shown once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from backstay.catalog.database import Catalog
from backstay.catalog.models import Token, User
from backstay.control.access.principal import the_machine
from backstay.control.access.token_text import LONGEST, digest_of
from backstay.control.access.tokens import Tokens
from backstay.control.access.turns import take_turn
from backstay.control.access.users import Users, has_administrator
from backstay.core.clock import Clock
from backstay.errors import InvalidRequest

NAME: Final = "admin"
PRESET: Final = "BACKSTAY_ADMIN_TOKEN"  # the variable, and the name of the token that it gives
_LEAST: Final = 24  # characters of a token that somebody chose


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstToken:
    """A token to be shown once: nobody can find it out again."""

    user: str
    text: str = field(repr=False)


def ensure_administrator(
    catalog: Catalog,
    users: Users,
    tokens: Tokens,
    clock: Clock,
    *,
    preset: str | None,
    show: Callable[[FirstToken], None] = lambda _: None,
) -> FirstToken | None:
    """Make the user `admin` if nobody may do everything, or if a preset token should speak for it.

    Another preset than before takes the place of the old one, which is revoked; one that was revoked by hand stays
    revoked. Returns a token only if it was made here. Of two servers that start at once, one makes the administrator.

    `show` is given that token before it counts: where it raises, no administrator was made.

    Raises InvalidRequest for a preset that could be guessed.
    """
    if preset is not None:
        _check_preset(preset)
    with catalog.session() as session:
        take_turn(session)
        first = _ensure(session, users, tokens, clock, preset)
        if first is not None:
            show(first)
        return first


def _ensure(session: Session, users: Users, tokens: Tokens, clock: Clock, preset: str | None) -> FirstToken | None:
    by = the_machine()
    if preset is None and has_administrator(session):
        return None
    if session.scalar(select(User.id).where(User.name == NAME)) is None:
        users.add(session, by=by, name=NAME)
        users.grant(session, by=by, name=NAME, role="admin")
    if preset is None:
        return FirstToken(user=NAME, text=tokens.create(session, by=by, user=NAME, name="first start").text)
    _preset(session, tokens, clock, preset)
    return None


def _preset(session: Session, tokens: Tokens, clock: Clock, text: str) -> None:
    digest = digest_of(text)
    if session.scalar(select(Token.id).where(Token.secret_digest == digest)) is not None:
        return
    owner = session.scalars(select(User).where(User.name == NAME)).one()
    for old in session.scalars(select(Token).where(Token.user_id == owner.id, Token.name == PRESET)):
        old.revoked_at = old.revoked_at or clock.now()
    tokens.add_known(session, owner=owner, name=PRESET, text=text)


def _check_preset(text: str) -> None:
    if not _LEAST <= len(text) <= LONGEST or not (text.isascii() and text.isprintable()) or " " in text:
        raise InvalidRequest(
            f"{PRESET} cannot be used",
            cause=f"it needs {_LEAST} to {LONGEST} visible characters of ASCII, without blanks",
            hint="take random ones: `openssl rand -hex 32`",
        )
