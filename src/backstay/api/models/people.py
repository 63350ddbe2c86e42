"""Users, their roles and tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from backstay.api.models.base import Asked, Line, Moment

ScopeText = Annotated[str, StringConstraints(min_length=1, max_length=512)]
UserName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._@+-]{0,63}$")]
Password = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class AskedRole(Asked):
    """A role within a scope."""

    role: Literal["viewer", "operator", "restorer", "auditor", "admin"]
    scope: ScopeText = "/"


class NewUser(Asked):
    """A person or a program."""

    name: UserName
    password: Password | None = None
    roles: Annotated[list[AskedRole], Field(max_length=100, default_factory=list)]


class ChangedUser(Asked):
    """What becomes of a user; what is left out stays."""

    disabled: bool | None = None
    password: Password | None = None
    roles: Annotated[list[AskedRole] | None, Field(max_length=100)] = None


class NewToken(Asked):
    """A secret that speaks for a user, within limits."""

    name: Line
    user: UserName | None = None
    permissions: Annotated[list[Line] | None, Field(max_length=100)] = None
    scopes: Annotated[list[ScopeText] | None, Field(max_length=100)] = None
    networks: Annotated[list[Line] | None, Field(max_length=100)] = None
    expires_at: Moment | None = None


class RoleInScope(TypedDict):
    """A role and where it holds."""

    role: str
    scope: str


class UserDocument(TypedDict):
    """A user as those may see it who manage it."""

    id: str
    name: str
    kind: str
    has_password: bool
    disabled: bool
    roles: list[RoleInScope]
    created_at: datetime


class RoleDocument(TypedDict):
    """A role and what it may."""

    name: str
    permissions: list[str]


class TokenDocument(TypedDict):
    """A token, without its text."""

    id: str
    user: str
    name: str
    permissions: list[str] | None
    scopes: list[str] | None
    networks: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class MadeTokenDocument(TokenDocument):
    """A new token: its text is shown now and never again."""

    token: str | None


class Self(TypedDict):
    """Who asks, and what they may where."""

    user_id: str
    name: str
    kind: str
    token_id: str | None
    permissions: dict[str, list[str]]
