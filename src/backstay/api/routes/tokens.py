"""Tokens: made, listed, revoked."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from sqlalchemy.orm import Session

from backstay.api.answers import answer, done, page
from backstay.api.call import Call, Caller
from backstay.api.endpoints import Section
from backstay.api.known import told_as, user_meant
from backstay.api.models.base import Ident, Paged, PageOf
from backstay.api.models.people import MadeTokenDocument, NewToken, TokenDocument, UserName
from backstay.api.paging import part_of
from backstay.control.access.denied import not_allowed
from backstay.control.access.tokens import TokenView
from backstay.errors import Forbidden, NotFound

section = Section("tokens")


class WhoseTokens(Paged):
    """Whose tokens are wanted; one's own, if nobody is named."""

    user: UserName | None = None


@section.get("/api/tokens", needs="token:self", answers=PageOf[TokenDocument], refuses=(404,))
def list_tokens(call: Caller, asked: Annotated[WhoseTokens, Query()]) -> Response:
    """List one's own tokens, or those of a user whom one manages."""
    with call.backing.catalog.reading() as session:
        tokens = call.backing.access.tokens.of(session, by=call.principal, user=_owner(call, session, asked.user))
    shown, following = part_of(tokens, lambda token: token.id, asked)
    return page([_document(token) for token in shown], following)


@section.post(
    "/api/tokens",
    needs="token:self",
    does="token.create",
    answers={201: MadeTokenDocument},
    refuses=(404,),
    creates=True,
)
def create_token(call: Caller, body: NewToken) -> Response:
    """Make a token for oneself, or for a user whom one manages. Its text is in this answer and nowhere else.

    A repetition with the same Idempotency-Key tells of the token, and not its text.
    """
    with call.backing.catalog.session() as session:
        call.take_turn(session)
        asked = body.model_dump() | {"user": _owner(call, session, body.user)}
        made = call.backing.access.tokens.create(session, by=call.principal, **asked)
        call.about(f"token/{made.token.id}", user=made.token.user, name=made.token.name)
        call.hidden["token"] = None
        return call.made(session, answer(MadeTokenDocument(**_document(made.token), token=made.text), 201))


@section.delete("/api/tokens/{token}", needs="token:self", does="token.revoke")
def revoke_token(call: Caller, token: Ident) -> Response:
    """Make a token worthless from now on."""
    call.about(f"token/{token}")
    missing = NotFound(f"there is no token {token[:80]!r}", hint="`GET /api/tokens` lists your own")
    try:
        with told_as(missing), call.backing.catalog.session() as session:
            call.take_turn(session)
            call.backing.access.tokens.revoke(session, by=call.principal, token_id=token)
            call.record(session)
    except Forbidden as error:  # nobody learns which tokens others have
        call.refused(error)
        raise missing from None
    return done()


def _owner(call: Call, session: Session, user: str | None) -> str | None:
    """Whose tokens are meant: the caller's own, or those of a user whom it manages. Raises NotFound, Forbidden."""
    if user in (None, call.principal.name, call.principal.user_id):
        return None
    if not call.principal.scopes("user:admin"):
        raise not_allowed("user:admin", "any scope")
    return user_meant(call, session, user).id


def _document(token: TokenView) -> TokenDocument:
    limits = token.limits
    return TokenDocument(
        id=token.id,
        user=token.user,
        name=token.name,
        permissions=None if limits.permissions is None else sorted(limits.permissions),
        scopes=None if limits.scopes is None else list(limits.scopes),
        networks=None if limits.networks is None else list(limits.networks),
        created_at=token.created_at,
        expires_at=limits.expires_at,
        revoked_at=token.revoked_at,
        last_used_at=token.last_used_at,
    )
