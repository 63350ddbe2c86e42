"""Users, and the roles that there are."""

from __future__ import annotations

from fastapi import Response

from backstay.api.answers import answer, done, page
from backstay.api.call import Caller
from backstay.api.endpoints import Section
from backstay.api.known import user_meant
from backstay.api.models.base import Ident, PageOf, PageQuery
from backstay.api.models.people import ChangedUser, NewUser, RoleDocument, Self, UserDocument
from backstay.api.paging import part_of
from backstay.api.versions import etag_of
from backstay.control.access.permissions import PERMISSIONS, ROLES
from backstay.control.access.users import UserView

section = Section("users")


@section.get("/api/whoami", needs="token:self", answers=Self)
def whoami(call: Caller) -> Response:
    """Tell who asks, and what they may where."""
    who = call.principal
    return answer(
        Self(
            user_id=who.user_id,
            name=who.name,
            kind=who.kind,
            token_id=who.token_id,
            permissions={name: list(who.scopes(name)) for name in sorted(PERMISSIONS) if who.scopes(name)},
        )
    )


@section.get("/api/roles", needs="token:self", answers=PageOf[RoleDocument])
def list_roles(call: Caller, asked: PageQuery) -> Response:
    """List the roles, and what each may."""
    del call
    shown, following = part_of(ROLES.items(), lambda role: role[0], asked)
    return page([RoleDocument(name=name, permissions=sorted(may)) for name, may in shown], following)


@section.get("/api/users", needs="user:admin", answers=PageOf[UserDocument])
def list_users(call: Caller, asked: PageQuery) -> Response:
    """List the users whom the caller manages."""
    with call.backing.catalog.reading() as session:
        users = [user for user in call.backing.access.users.all(session) if call.manages(user)]
    shown, following = part_of(users, lambda user: user.name, asked)
    return page([_document(user) for user in shown], following)


@section.post(
    "/api/users", needs="user:admin", does="user.create", answers={201: UserDocument}, refuses=(404,), creates=True
)
def create_user(call: Caller, body: NewUser) -> Response:
    """Make a user, with roles; none may be given that the caller has not.

    Who manages the users of some scopes only gives it a role there.
    """
    access = call.backing.access
    call.about(f"user/{body.name}", roles=[f"{role.role} {role.scope}" for role in body.roles])
    kept = None if body.password is None else access.passwords.hash(body.password, user=body.name)
    with call.backing.catalog.session() as session:
        call.take_turn(session)
        user = access.users.add(session, by=call.principal, name=body.name, password_hash=kept)
        for role in body.roles:
            user = access.users.grant(session, by=call.principal, name=body.name, role=role.role, scope=role.scope)
        access.users.require_power(call.principal, user)
        where, tag = f"/api/users/{user.name}", etag_of(user.name, user.version)
        return call.made(session, answer(_document(user), 201, location=where, etag=tag))


@section.get("/api/users/{user}", needs="user:admin", answers=UserDocument, refuses=(404,))
def get_user(call: Caller, user: Ident) -> Response:
    """Tell about one user."""
    with call.backing.catalog.reading() as session:
        found = user_meant(call, session, user)
    return answer(_document(found), etag=etag_of(found.name, found.version))


@section.put("/api/users/{user}", needs="user:admin", does="user.update", answers=UserDocument)
def update_user(call: Caller, user: Ident, body: ChangedUser) -> Response:
    """Shut a user out or let it in, change its password or its roles; what is left out stays."""
    access = call.backing.access
    call.about(f"user/{user}", changed=sorted(body.model_fields_set))
    kept = None if body.password is None else access.passwords.hash(body.password, user=user)
    with call.backing.catalog.session() as session:
        call.take_turn(session)
        by, found = call.principal, user_meant(call, session, user)
        call.match(found.name, found.version)
        if body.disabled is not None and body.disabled != found.disabled:
            access.users.set_disabled(session, by=by, name=found.id, disabled=body.disabled)
        if kept is not None:
            access.users.set_password(session, by=by, name=found.id, password_hash=kept)
        if body.roles is not None:  # last: without roles it may be managed by others than the caller
            wanted: set[tuple[str, str]] = {(role.role, role.scope) for role in body.roles}
            for role, scope in sorted(wanted - set(found.roles)):
                access.users.grant(session, by=by, name=found.id, role=role, scope=scope)
            for role, scope in sorted(set(found.roles) - wanted):
                access.users.revoke(session, by=by, name=found.id, role=role, scope=scope)
        changed = access.users.get(session, found.id)
        call.record(session)
    return answer(_document(changed), etag=etag_of(changed.name, changed.version))


@section.delete("/api/users/{user}", needs="user:admin", does="user.disable", refuses=(412,))
def delete_user(call: Caller, user: Ident) -> Response:
    """Shut a user out, with all its tokens.

    Its name stays taken, and it stays in the list as disabled: the audit log tells of it.
    """
    call.about(f"user/{user}")
    with call.backing.catalog.session() as session:
        call.take_turn(session)
        found = user_meant(call, session, user)
        call.match(found.name, found.version)
        call.backing.access.users.set_disabled(session, by=call.principal, name=found.id)
        call.record(session)
    return done()


def _document(user: UserView) -> UserDocument:
    return UserDocument(
        id=user.id,
        name=user.name,
        kind=user.kind,
        has_password=user.has_password,
        disabled=user.disabled,
        roles=[{"role": role, "scope": scope} for role, scope in user.roles],
        created_at=user.created_at,
    )
