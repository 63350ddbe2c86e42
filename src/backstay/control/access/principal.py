"""Who asks, and what they may: permissions by scope, settled when they were recognised."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from backstay.control.access.permissions import PERMISSIONS, ROLES, Permission
from backstay.control.access.scopes import EVERYTHING, covers, meet, outermost, parse_scope

UserKind: TypeAlias = Literal["user", "agent", "oidc"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """Permissions within a scope and below."""

    scope: str
    permissions: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a token is limited to; None does not limit."""

    permissions: frozenset[str] | None = None
    scopes: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """A user, or a token that speaks for one. `address` is where the request came from, empty if it is not known.

    `more` is what the way in which it was recognised grants besides its roles; `certificate` the serial of an agent's.
    """

    user_id: str
    name: str
    grants: tuple[Grant, ...]
    kind: str = "user"
    token_id: str | None = None
    certificate: str | None = None
    address: str = ""
    limits: Limits = field(default_factory=Limits)
    more: tuple[Grant, ...] = ()

    def may(self, permission: Permission, scope: str) -> bool:
        """Whether this is allowed: only what a grant says is. Raises InvalidRequest for what is no scope."""
        inner = parse_scope(scope)
        return any(permission in grant.permissions and covers(grant.scope, inner) for grant in self.grants)

    def scopes(self, permission: Permission) -> tuple[str, ...]:
        """Where this is allowed, in the fewest scopes; empty if nowhere."""
        return outermost(grant.scope for grant in self.grants if permission in grant.permissions)


def grants_of_roles(bindings: Iterable[tuple[str, str]]) -> tuple[Grant, ...]:
    """What pairs of role and scope allow. A role that this version does not know allows nothing."""
    roles = dict[str, frozenset[Permission]](ROLES.items())
    return tuple(Grant(scope=scope, permissions=roles[role]) for role, scope in bindings if role in roles)


def limited(grants: Iterable[Grant], limits: Limits) -> tuple[Grant, ...]:
    """What is left of grants within limits: never more than either allows."""
    found: dict[str, frozenset[str]] = {}
    for grant in grants:
        permissions = grant.permissions if limits.permissions is None else grant.permissions & limits.permissions
        for limit in (EVERYTHING,) if limits.scopes is None else limits.scopes:
            scope = meet(grant.scope, limit)
            if scope is not None and permissions:
                found[scope] = found.get(scope, frozenset()) | permissions
    return tuple(Grant(scope=scope, permissions=permissions) for scope, permissions in sorted(found.items()))


def the_machine(name: str = "system") -> Principal:
    """The program itself, or whoever works on its data directory: it may do everything."""
    return Principal(
        user_id="", name=name, kind="system", grants=(Grant(scope=EVERYTHING, permissions=frozenset(PERMISSIONS)),)
    )
