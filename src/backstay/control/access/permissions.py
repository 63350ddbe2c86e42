"""The permissions there are, and the roles that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, get_args

from backstay.errors import InvalidRequest

Permission: TypeAlias = Literal[
    "backup:create",
    "backup:read",
    "backup:delete",
    "backup:cancel",
    "backup:validate",
    "restore:plan",
    "restore:execute",
    "restore:in_place",  # over what is there, instead of beside it
    "restore:recover",  # by a plan, which runs programs
    "restore:cancel",
    "schedule:read",
    "schedule:write",
    "policy:read",
    "policy:write",
    "repo:read",
    "repo:write",
    "repo:gc",
    "repo:unlock",
    "hold:set",
    "hold:release",
    "key:read",
    "key:rotate",
    "audit:read",
    "user:admin",
    "token:self",
    "settings:write",
    "agent:work",  # of agents alone: no role has it
]
Role: TypeAlias = Literal["viewer", "operator", "restorer", "auditor", "admin"]

PERMISSIONS: Final[frozenset[Permission]] = frozenset(get_args(Permission))
OF_AGENTS: Final[frozenset[Permission]] = frozenset({"agent:work"})

_VIEWER: Final[frozenset[Permission]] = frozenset(
    {"backup:read", "schedule:read", "policy:read", "repo:read", "token:self"}
)
_RESTORES: Final[frozenset[Permission]] = frozenset(
    {"backup:validate", "restore:plan", "restore:execute", "restore:cancel"}
)
ROLES: Final[Mapping[Role, frozenset[Permission]]] = MappingProxyType(
    {
        "viewer": _VIEWER,
        "operator": _VIEWER | _RESTORES | {"backup:create", "backup:cancel", "schedule:write", "hold:set"},
        "restorer": _VIEWER | _RESTORES | {"restore:in_place"},
        "auditor": _VIEWER | {"audit:read", "key:read"},
        "admin": PERMISSIONS - OF_AGENTS,
    }
)


def parse_role(text: str) -> Role:
    """The role of this name. Raises InvalidRequest."""
    for role in ROLES:
        if role == text:
            return role
    raise InvalidRequest(f"there is no role {text!r}", hint="roles are " + ", ".join(ROLES))


def parse_permission(text: str) -> Permission:
    """The permission of this name. Raises InvalidRequest."""
    for permission in PERMISSIONS:
        if permission == text:
            return permission
    raise InvalidRequest(f"there is no permission {text!r}", hint="permissions are " + ", ".join(sorted(PERMISSIONS)))
