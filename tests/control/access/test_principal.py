"""Laws of decisions: what is not said is not allowed, limits only take away, more roles never allow less."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.control.access.permissions import (
    OF_AGENTS,
    PERMISSIONS,
    ROLES,
    Permission,
    Role,
    parse_permission,
    parse_role,
)
from backstay.control.access.principal import Grant, Limits, Principal, grants_of_roles, limited, the_machine
from backstay.control.access.scopes import covers
from backstay.errors import InvalidRequest
from tests.control.access.test_scopes import SCOPES

ROLE_NAMES = st.sampled_from(sorted(ROLES))
BINDINGS = st.lists(st.tuples(ROLE_NAMES, SCOPES), max_size=4)
ASKED = st.sampled_from(sorted(PERMISSIONS))
LIMITS = st.builds(
    Limits,
    permissions=st.none() | st.frozensets(ASKED, max_size=6),
    scopes=st.none() | st.lists(SCOPES, max_size=3).map(tuple),
)


def somebody(grants: tuple[Grant, ...]) -> Principal:
    return Principal(user_id="u", name="u", grants=grants)


@given(ASKED, SCOPES)
def test_who_has_no_role_may_nothing(permission: Permission, scope: str) -> None:
    nobody = somebody(limited(grants_of_roles([]), Limits()))
    assert not nobody.may(permission, scope)
    assert nobody.scopes(permission) == ()


@given(BINDINGS, ASKED, SCOPES)
def test_allowed_is_what_a_role_holds_within_its_scope(
    bindings: list[tuple[Role, str]], permission: Permission, scope: str
) -> None:
    expected = any(permission in ROLES[role] and covers(where, scope) for role, where in bindings)
    assert somebody(limited(grants_of_roles(bindings), Limits())).may(permission, scope) == expected


@given(BINDINGS, BINDINGS, ASKED, SCOPES)
def test_another_role_never_takes_away(
    few: list[tuple[Role, str]], more: list[tuple[Role, str]], permission: Permission, scope: str
) -> None:
    if somebody(grants_of_roles(few)).may(permission, scope):
        assert somebody(grants_of_roles(few + more)).may(permission, scope)


@given(BINDINGS, LIMITS, ASKED, SCOPES)
def test_a_token_may_what_its_owner_may_within_its_limits(
    bindings: list[tuple[Role, str]], limits: Limits, permission: Permission, scope: str
) -> None:
    owner = somebody(grants_of_roles(bindings))
    token = somebody(limited(owner.grants, limits))
    within = (limits.permissions is None or permission in limits.permissions) and (
        limits.scopes is None or any(covers(outer, scope) for outer in limits.scopes)
    )
    assert token.may(permission, scope) == (owner.may(permission, scope) and within)


@given(BINDINGS, ASKED, SCOPES)
def test_who_may_below_may_at_what_lies_deeper(
    bindings: list[tuple[Role, str]], permission: Permission, scope: str
) -> None:
    one = somebody(limited(grants_of_roles(bindings), Limits()))
    assert one.may(permission, scope) == any(covers(outer, scope) for outer in one.scopes(permission))


def test_a_role_or_permission_that_is_not_known_allows_nothing() -> None:
    one = somebody(grants_of_roles([("emperor", "/"), ("", "/"), ("Admin", "/")]))
    assert one.grants == ()
    for parse in (parse_role, parse_permission):
        with pytest.raises(InvalidRequest):
            parse("emperor")
    limits = Limits(permissions=frozenset({"backup:everything"}))
    assert limited(the_machine().grants, limits) == ()


def test_a_malformed_scope_is_never_allowed() -> None:
    one = somebody(grants_of_roles([("admin", "/policy/a")]))
    for scope in ("/policy/a/..", "/policy/a/../b", "/policy/a/", "/policy/a/source/b/..", "/policy/a\0"):
        with pytest.raises(InvalidRequest):
            one.may("backup:read", scope)


def test_the_roles_are_what_their_page_says() -> None:
    assert set(ROLES) == set(get_args(Role))
    assert ROLES["admin"] == PERMISSIONS - OF_AGENTS
    assert not any(OF_AGENTS & may for may in ROLES.values())
    assert ROLES["viewer"] < ROLES["operator"]
    assert ROLES["viewer"] < ROLES["restorer"]
    assert {"backup:create", "restore:execute"} <= ROLES["operator"]
    assert "restore:in_place" not in ROLES["operator"]
    assert "restore:in_place" in ROLES["restorer"]
    for role in ("viewer", "operator", "restorer", "auditor"):
        assert not ROLES[parse_role(role)] & {
            "backup:delete",
            "hold:release",
            "user:admin",
            "settings:write",
            "policy:write",
            "key:rotate",
            "repo:gc",
            "repo:unlock",
            "repo:write",
        }
    for role in ("viewer", "auditor"):
        assert {name.partition(":")[2] for name in ROLES[parse_role(role)]} <= {"read", "self"}
