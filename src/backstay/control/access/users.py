"""Users and their roles. Each change is part of the caller's transaction, with its line in the audit log."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from sqlalchemy import select
from sqlalchemy.orm import Session

from backstay.catalog.models import Binding, User
from backstay.control.access import authority
from backstay.control.access.permissions import parse_role
from backstay.control.access.principal import Principal, UserKind
from backstay.control.access.scopes import EVERYTHING, parse_scope
from backstay.control.access.turns import take_turn
from backstay.core.clock import Clock
from backstay.core.ids import Random, is_ulid, new_ulid
from backstay.errors import InvalidRequest, NotFound

RunBy: TypeAlias = Callable[[str], Iterable[str]]  # the policies whose jobs an agent is given

_ALL_POWER: Final = ("admin", EVERYTHING)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")


@dataclass(frozen=True, kw_only=True, slots=True)
class UserView:
    """A user as others may see it. `roles` are pairs of role and scope."""

    id: str
    name: str
    kind: str
    has_password: bool
    disabled: bool
    created_at: datetime
    version: int
    roles: tuple[tuple[str, str], ...]


class Users:
    """The users of a catalog. `by` is who changes something: it needs `user:admin` over all that is touched."""

    def __init__(self, clock: Clock, random: Random, run_by: RunBy = lambda _agent: ()) -> None:
        self._clock, self._random, self._run_by = clock, random, run_by

    def require_power(self, by: Principal, user: UserView) -> None:
        """Raise Forbidden unless `by` manages this user: see `authority.demand_over`."""
        policies = self._run_by(user.name) if user.kind == "agent" else ()
        authority.demand_over(by, user.kind, user.roles, policies)

    def add(
        self,
        session: Session,
        *,
        by: Principal,
        name: str,
        kind: UserKind = "user",
        password_hash: str | None = None,
        subject: str | None = None,
    ) -> UserView:
        """A user without roles. Raises InvalidRequest, Forbidden."""
        authority.demand_somewhere(by, "user:admin")
        check_user_name(name)
        take_turn(session)
        if session.scalar(select(User.id).where(User.name == name)) is not None:
            raise InvalidRequest(f"there is a user {name} already", hint="choose another name")
        now = self._clock.now()
        user = User(
            id=new_ulid(self._clock.now_ns(), self._random),
            name=name,
            kind=kind,
            subject=subject,
            password_hash=password_hash,
            created_at=now,
        )
        session.add(user)
        session.flush()
        return _view(user, ())

    def all(self, session: Session) -> list[UserView]:
        """All users by name."""
        roles = _all_roles(session)
        return [_view(user, roles.get(user.id, ())) for user in session.scalars(select(User).order_by(User.name))]

    def get(self, session: Session, name: str) -> UserView:
        """The user of this id or name. Raises NotFound."""
        user = find_user(session, name)
        return _view(user, roles_of(session, user.id))

    def set_disabled(self, session: Session, *, by: Principal, name: str, disabled: bool = True) -> UserView:
        """Shut a user out, with all its tokens and certificates, or let it in again.

        Raises NotFound, Forbidden, InvalidRequest for the last one who may do everything.
        """
        user, roles = self._managed(session, by, name)
        if disabled:
            _demand_another_administrator(session, user.id)
        user.disabled = disabled
        user.version += 1
        session.flush()
        return _view(user, roles)

    def set_password(self, session: Session, *, by: Principal, name: str, password_hash: str) -> UserView:
        """Give a user another password, of which `Passwords.hash` made this. Users may change their own.

        Raises NotFound, Forbidden, InvalidRequest.
        """
        user = _changeable(session, name)
        roles = roles_of(session, user.id)
        if by.user_id != user.id or by.token_id is not None:  # a token that leaked must not take over its user
            self.require_power(by, _view(user, roles))
        if user.kind != "user":
            raise InvalidRequest(f"{user.name} logs in without a password", cause=f"it is of kind {user.kind}")
        user.password_hash = password_hash
        user.version += 1
        session.flush()
        return _view(user, roles)

    def grant(self, session: Session, *, by: Principal, name: str, role: str, scope: str = EVERYTHING) -> UserView:
        """Give a role within a scope; one that is there already stays. Raises NotFound, Forbidden, InvalidRequest."""
        wanted, where = parse_role(role), parse_scope(scope)
        authority.demand_role(by, wanted, where)
        user = _changeable(session, name)
        if (wanted, where) not in roles_of(session, user.id):
            id_ = new_ulid(self._clock.now_ns(), self._random)
            session.add(Binding(id=id_, user_id=user.id, role=wanted, scope=where))
            user.version += 1
            session.flush()
        return _view(user, roles_of(session, user.id))

    def revoke(self, session: Session, *, by: Principal, name: str, role: str, scope: str = EVERYTHING) -> UserView:
        """Take a role away. Raises NotFound, Forbidden, InvalidRequest for the last one who may do everything."""
        user, _ = self._managed(session, by, name)
        binding = session.scalar(
            select(Binding).where(Binding.user_id == user.id, Binding.role == role, Binding.scope == scope)
        )
        if binding is None:
            raise NotFound(f"{user.name} has no role {role} for {scope}", hint="`backstay user list` shows the roles")
        if (role, scope) == _ALL_POWER:
            _demand_another_administrator(session, user.id)
        session.delete(binding)
        user.version += 1
        session.flush()
        return _view(user, roles_of(session, user.id))

    def _managed(self, session: Session, by: Principal, name: str) -> tuple[User, tuple[tuple[str, str], ...]]:
        user = _changeable(session, name)
        roles = roles_of(session, user.id)
        self.require_power(by, _view(user, roles))
        return user, roles


def has_administrator(session: Session) -> bool:
    """Whether there is somebody who may do everything."""
    return bool(_administrators(session))


def _administrators(session: Session) -> Sequence[str]:
    role, scope = _ALL_POWER
    return session.scalars(
        select(User.id)
        .join(Binding, Binding.user_id == User.id)
        .where(Binding.role == role, Binding.scope == scope, User.disabled.is_(False))
    ).all()


def _demand_another_administrator(session: Session, user_id: str) -> None:
    """Raise InvalidRequest if this user is the only one left who may do everything."""
    if list(_administrators(session)) == [user_id]:
        raise InvalidRequest(
            "nobody would be left who may do everything",
            cause="this is the last administrator",
            hint="give another user the role admin for / first",
        )


def is_user_name(name: str) -> bool:
    """Whether users can be called so; not like an id, by which another one may be known."""
    return _NAME.fullmatch(name) is not None and not is_ulid(name)


def check_user_name(name: str) -> None:
    """Raise InvalidRequest unless users can be called so."""
    if not is_user_name(name):
        raise InvalidRequest(
            f"{name[:80]!r} cannot name a user",
            cause="names have 1 to 64 of the characters a-z 0-9 . _ @ + -, begin with one of a-z 0-9, and are no ids",
            hint="choose another name",
        )


def roles_of(session: Session, user_id: str) -> tuple[tuple[str, str], ...]:
    """Pairs of role and scope, in a fixed order."""
    rows = session.execute(select(Binding.role, Binding.scope).where(Binding.user_id == user_id))
    return tuple(sorted((role, scope) for role, scope in rows))


def _all_roles(session: Session) -> dict[str, tuple[tuple[str, str], ...]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for user_id, role, scope in session.execute(select(Binding.user_id, Binding.role, Binding.scope)):
        found.setdefault(user_id, []).append((role, scope))
    return {user_id: tuple(sorted(roles)) for user_id, roles in found.items()}


def find_user(session: Session, name: str) -> User:
    """The user of this id, else of this name, as it is now. Raises NotFound."""
    user = session.get(User, name, populate_existing=True)
    if user is None:
        user = session.scalar(select(User).where(User.name == name), execution_options={"populate_existing": True})
    if user is None:
        raise NotFound(f"there is no user {name[:80]!r}", hint="`backstay user list` shows the users")
    return user


def _changeable(session: Session, name: str) -> User:
    """A user as it is once nobody else changes it. Raises NotFound."""
    take_turn(session)
    return find_user(session, name)


def _view(user: User, roles: Sequence[tuple[str, str]]) -> UserView:
    return UserView(
        id=user.id,
        name=user.name,
        kind=user.kind,
        has_password=user.password_hash is not None,
        disabled=user.disabled,
        created_at=user.created_at,
        version=user.version,
        roles=tuple(roles),
    )
