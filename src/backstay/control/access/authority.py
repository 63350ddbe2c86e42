"""Nobody gives what they do not have, and nobody has power over somebody who may more."""

from __future__ import annotations

from collections.abc import Iterable

from backstay.control.access.denied import not_allowed
from backstay.control.access.permissions import ROLES, Permission, Role
from backstay.control.access.principal import Grant, Principal, grants_of_roles
from backstay.control.access.scopes import EVERYTHING, covers, policy_scope
from backstay.errors import Forbidden


def demand(by: Principal, permission: Permission, scope: str) -> None:
    """Raise Forbidden unless this is allowed."""
    if not by.may(permission, scope):
        raise not_allowed(permission, scope)


def demand_somewhere(by: Principal, permission: Permission) -> None:
    """Raise Forbidden unless this is allowed within any scope."""
    if not by.scopes(permission):
        raise not_allowed(permission, "any scope")


def demand_role(by: Principal, role: Role, scope: str) -> None:
    """Raise Forbidden unless `by` manages users within the scope and may all that the role may."""
    demand(by, "user:admin", scope)
    if not _has(by, Grant(scope=scope, permissions=frozenset(ROLES[role]))):
        raise Forbidden("this is not allowed", cause=f"you may less than the role {role}", reason="missing_permission")


def demand_over(by: Principal, kind: str, bindings: Iterable[tuple[str, str]], policies: Iterable[str] = ()) -> None:
    """Raise Forbidden unless `by` manages users wherever this one may something, and may all that it may.

    `policies` are those that an agent runs. Whom nothing puts into one place, and whose groups may say more than the
    bindings, is for those who manage users everywhere.
    """
    demand_somewhere(by, "user:admin")
    grants, runs = grants_of_roles(bindings), [policy_scope(policy) for policy in policies]
    if kind == "oidc" or not (grants or runs):
        demand_everything(by)
    for scope in runs:
        demand(by, "user:admin", scope)
    for grant in grants:
        demand(by, "user:admin", grant.scope)
        if not _has(by, grant):
            raise Forbidden("this is not allowed", cause="that user may more than you", reason="missing_permission")


def demand_everything(by: Principal) -> None:
    """Raise Forbidden unless `by` manages users everywhere."""
    demand(by, "user:admin", EVERYTHING)


def _has(by: Principal, grant: Grant) -> bool:
    own = frozenset[str]().union(*(mine.permissions for mine in by.grants if covers(mine.scope, grant.scope)))
    return grant.permissions <= own
