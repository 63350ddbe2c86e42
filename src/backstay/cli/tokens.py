"""`token`: secrets by which programs use the service in the name of a user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli.context import context_of
from backstay.cli.options import argument, option
from backstay.cli.people import Database, DataDir, people
from backstay.cli.render import local_time, out, print_table

if TYPE_CHECKING:
    from datetime import datetime

    from backstay.control.access.tokens import TokenView


def token_create(
    ctx: typer.Context,
    user: Annotated[str, argument("USER", "In whose name it speaks.")],
    name: Annotated[str, option("TEXT", "What it is for, as `token list` shows it.", show_default=True)] = (
        "command line"
    ),
    permission: Annotated[
        list[str] | None, option("PERMISSION", "Limit it to this, such as backup:read; repeatable.")
    ] = None,
    scope: Annotated[list[str] | None, option("SCOPE", "Limit it to this, such as /policy/NAME; repeatable.")] = None,
    network: Annotated[
        list[str] | None, option("NETWORK", "Let it come from here only, such as 10.0.0.0/8; repeatable.")
    ] = None,
    expires_in: Annotated[str | None, option("LENGTH", "Let it end after, such as 90d; else it does not.")] = None,
    data_dir: DataDir = None,
    database: Database = None,
) -> int:
    """Make a token and print it, once. It never may more than its user."""
    from backstay.core.times import parse_length

    context = context_of(ctx)
    end = None if expires_in is None else context.clock.now() + parse_length(expires_in)
    with people(context, data_dir, database, command="token create") as found:  # noqa: SIM117 - two steps
        with found.changing("token.create", f"user/{user}", name=name) as session:
            made = found.access.tokens.create(
                session,
                by=found.by,
                user=user,
                name=name,
                permissions=permission or None,
                scopes=scope or None,
                networks=network or None,
                expires_at=end,
            )

    def show() -> None:
        out(made.text)
        context.warn("it is not shown again")

    context.result({**_document(made.token), "token": made.text}, show)
    return 0


def token_list(
    ctx: typer.Context,
    user: Annotated[str | None, argument("USER", "Only those of this user.")] = None,
    data_dir: DataDir = None,
    database: Database = None,
) -> int:
    """List the tokens, without their texts."""
    context = context_of(ctx)
    with people(context, data_dir, database, command="token list") as found, found.catalog.reading() as session:
        tokens = found.access.tokens
        shown = tokens.of_all(session, by=found.by) if user is None else tokens.of(session, by=found.by, user=user)
    now = context.clock.now()

    def show() -> None:
        rows = [
            (
                token.id,
                token.user,
                token.name,
                _state(token, now),
                _limits(token),
                local_time(token.last_used_at) if token.last_used_at else "never",
            )
            for token in shown
        ]
        print_table(("ID", "User", "Name", "State", "Limited to", "Last used"), rows, context.environ)

    context.result({"tokens": [_document(token) for token in shown]}, show)
    return 0


def token_revoke(
    ctx: typer.Context,
    token_id: Annotated[str, argument("ID", "Its id: the part between the two `_` of the token itself.")],
    data_dir: DataDir = None,
    database: Database = None,
) -> int:
    """Make a token worthless at once."""
    context = context_of(ctx)
    with people(context, data_dir, database, command="token revoke") as found:  # noqa: SIM117
        with found.changing("token.revoke", f"token/{token_id}") as session:
            token = found.access.tokens.revoke(session, by=found.by, token_id=token_id)
    context.result(_document(token), lambda: context.say(f"revoked {token.id} of {token.user}"))
    return 0


def _state(token: TokenView, now: datetime) -> str:
    if token.revoked_at is not None:
        return f"revoked {local_time(token.revoked_at)}"
    if token.limits.expires_at is None:
        return "valid"
    return f"{'ended' if token.limits.expires_at <= now else 'until'} {local_time(token.limits.expires_at)}"


def _limits(token: TokenView) -> str:
    limits = token.limits
    parts = [*sorted(limits.permissions or ()), *(limits.scopes or ()), *(limits.networks or ())]
    return ", ".join(parts) or "nothing"


def _document(token: TokenView) -> dict[str, object]:
    limits = token.limits
    return {
        "id": token.id,
        "user": token.user,
        "name": token.name,
        "permissions": None if limits.permissions is None else sorted(limits.permissions),
        "scopes": limits.scopes,
        "networks": limits.networks,
        "created_at": token.created_at,
        "expires_at": limits.expires_at,
        "revoked_at": token.revoked_at,
        "last_used_at": token.last_used_at,
    }
