"""`user`: who may use the service, and in which roles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli.context import Context, context_of
from backstay.cli.options import argument, option
from backstay.cli.people import Database, DataDir, people
from backstay.cli.render import local_time, print_table
from backstay.cli.secrets import new_user_password

if TYPE_CHECKING:
    from backstay.control.access.users import UserView

Name = Annotated[str, argument("NAME", "A user's name.")]
RoleName = Annotated[str, argument("ROLE", "viewer, operator, restorer, auditor or admin.")]
Scope = Annotated[
    str,
    option(
        "SCOPE",
        "Where it holds: /, /policy/NAME, /policy/NAME/source/SNAPSHOT_NAME or /repository.",
        show_default=True,
    ),
]


def user_add(
    ctx: typer.Context,
    name: Name,
    role: Annotated[str | None, option("ROLE", "Give a role at once; else `user grant` does.")] = None,
    scope: Scope = "/",
    data_dir: DataDir = None,
    database: Database = None,
) -> int:
    """Add a user; it has no password, and may nothing without a role."""
    context = context_of(ctx)
    with people(context, data_dir, database, command="user add", begins=True) as found:
        details = {} if role is None else {"roles": [f"{role} {scope}"]}
        with found.changing("user.create", f"user/{name}", **details) as session:
            user = found.access.users.add(session, by=found.by, name=name)
            if role is not None:
                user = found.access.users.grant(session, by=found.by, name=name, role=role, scope=scope)

    def show() -> None:
        context.say(f"added {name}" + ("" if role is None else f" as {role} for {scope}"))
        context.say(f"a token: `backstay token create {name}`; a password: `backstay user password {name}`")

    context.result(_document(user), show)
    return 0


def user_list(ctx: typer.Context, data_dir: DataDir = None, database: Database = None) -> int:
    """List the users and their roles."""
    context = context_of(ctx)
    with people(context, data_dir, database, command="user list") as found, found.catalog.reading() as session:
        users = found.access.users.all(session)

    def show() -> None:
        rows = [
            (
                user.name,
                user.kind,
                "disabled" if user.disabled else "password" if user.has_password else "",
                ", ".join(f"{role} {scope}" for role, scope in user.roles) or "none",
                local_time(user.created_at),
            )
            for user in users
        ]
        print_table(("Name", "Kind", "State", "Roles", "Since"), rows, context.environ)

    context.result({"users": [_document(user) for user in users]}, show)
    return 0


def user_disable(ctx: typer.Context, name: Name, data_dir: DataDir = None, database: Database = None) -> int:
    """Shut a user out at once, with all its tokens and certificates."""
    return _set_disabled(context_of(ctx), name, data_dir, database, disabled=True)


def user_enable(ctx: typer.Context, name: Name, data_dir: DataDir = None, database: Database = None) -> int:
    """Let a user in again."""
    return _set_disabled(context_of(ctx), name, data_dir, database, disabled=False)


def _set_disabled(context: Context, name: str, data_dir: Path | None, database: str | None, *, disabled: bool) -> int:
    word = "disable" if disabled else "enable"
    with people(context, data_dir, database, command=f"user {word}") as found:  # noqa: SIM117 - two steps
        with found.changing(f"user.{word}", f"user/{name}") as session:
            user = found.access.users.set_disabled(session, by=found.by, name=name, disabled=disabled)
    context.result(_document(user), lambda: context.say(f"{word}d {user.name}"))
    return 0


def user_password(
    ctx: typer.Context,
    name: Name,
    new_password_file: Annotated[
        Path | None, option("FILE", "Read it from a file; else BACKSTAY_NEW_PASSWORD, or it is asked for.")
    ] = None,
    data_dir: DataDir = None,
    database: Database = None,
) -> int:
    """Give a user a password to log in with, of 12 characters or more."""
    context = context_of(ctx)
    with people(context, data_dir, database, command="user password") as found:
        with found.catalog.reading() as session:
            user = found.access.users.get(session, name)
        text = new_user_password(context.environ, password_file=new_password_file, user=user.name)
        kept = found.access.passwords.hash(text, user=user.name)
        with found.changing("user.password", f"user/{user.name}") as session:
            user = found.access.users.set_password(session, by=found.by, name=user.name, password_hash=kept)
    context.result(_document(user), lambda: context.say(f"{user.name} has a new password"))
    return 0


def user_grant(
    ctx: typer.Context,
    name: Name,
    role: RoleName,
    scope: Scope = "/",
    data_dir: DataDir = None,
    database: Database = None,
) -> int:
    """Give a user a role, everywhere or within a scope."""
    context = context_of(ctx)
    with people(context, data_dir, database, command="user grant") as found:  # noqa: SIM117
        with found.changing("user.grant", f"user/{name}", role=role, scope=scope) as session:
            user = found.access.users.grant(session, by=found.by, name=name, role=role, scope=scope)
    context.result(_document(user), lambda: context.say(f"{user.name} is {role} for {scope}"))
    return 0


def user_revoke(
    ctx: typer.Context,
    name: Name,
    role: RoleName,
    scope: Scope = "/",
    data_dir: DataDir = None,
    database: Database = None,
) -> int:
    """Take a role away; what was given for another scope stays."""
    context = context_of(ctx)
    with people(context, data_dir, database, command="user revoke") as found:  # noqa: SIM117
        with found.changing("user.revoke", f"user/{name}", role=role, scope=scope) as session:
            user = found.access.users.revoke(session, by=found.by, name=name, role=role, scope=scope)
    context.result(_document(user), lambda: context.say(f"{user.name} is no {role} for {scope} any more"))
    return 0


def _document(user: UserView) -> dict[str, object]:
    return {
        "id": user.id,
        "name": user.name,
        "kind": user.kind,
        "has_password": user.has_password,
        "disabled": user.disabled,
        "roles": [{"role": role, "scope": scope} for role, scope in user.roles],
        "created_at": user.created_at,
    }
