"""Users: their names, roles, and who has power over whom."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backstay.catalog.database import Catalog
from backstay.catalog.models import User
from backstay.control.access.access import Access
from backstay.control.access.principal import the_machine
from backstay.errors import Forbidden, InvalidRequest, NotFound
from tests.control.access.people import HERE, PASSWORD, add, principal, token

MACHINE = the_machine()


@pytest.mark.parametrize("name", ["a", "ann", "ann.b@example.org", "7up", "x" * 64])
def test_users_are_told_apart_by_name(catalog: Catalog, access: Access, name: str) -> None:
    id_ = add(catalog, access, name)
    with catalog.session() as session:
        assert access.users.get(session, name).id == access.users.get(session, id_).id == id_
        with pytest.raises(InvalidRequest):
            access.users.add(session, by=MACHINE, name=name)


@pytest.mark.parametrize(
    "name",
    ["", "Ann", "-ann", "a b", "a/b", "a:b", "ann\n", "änn", "x" * 65, "../ann", "\u0430nn", "01hzy3v9k8" + "0" * 16],
)
def test_names_that_look_like_others_are_refused(catalog: Catalog, access: Access, name: str) -> None:
    with pytest.raises(InvalidRequest):
        add(catalog, access, name)


def test_a_name_that_is_the_id_of_another_user_leads_to_that_one(catalog: Catalog, access: Access) -> None:
    """As a catalog may have it from before such names were refused."""
    add(catalog, access, "mallory", ("admin", "/policy/a"))
    add(catalog, access, "root", ("admin", "/"))
    boss = add(catalog, access, "boss", ("viewer", "/"))
    other = add(catalog, access, "other", ("viewer", "/policy/a"))
    with catalog.session() as session:
        session.get_one(User, other).name = boss
    mallory, of_boss = principal(catalog, access, "mallory"), token(catalog, access, "boss")
    with catalog.session() as session:
        assert access.users.get(session, boss).name == "boss"
        for attempt in (
            lambda: access.tokens.revoke(session, by=mallory, token_id=of_boss.token.id),
            lambda: access.tokens.create(session, by=mallory, name="x", user=boss),
            lambda: access.users.set_disabled(session, by=mallory, name=boss),
        ):
            with pytest.raises(Forbidden):
                attempt()
        assert access.users.set_disabled(session, by=mallory, name=other).disabled
    assert access.authenticate_bearer(of_boss.text, HERE).name == "boss"


def test_roles_are_given_and_taken(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "root", ("admin", "/"))
    add(catalog, access, "ann")
    with catalog.session() as session:
        users = access.users
        assert users.get(session, "ann").roles == ()
        given = users.grant(session, by=MACHINE, name="ann", role="operator", scope="/policy/a")
        again = users.grant(session, by=MACHINE, name="ann", role="operator", scope="/policy/a")
        assert given.roles == again.roles == (("operator", "/policy/a"),)
        assert given.version == again.version == 2
        for role, scope in (("emperor", "/"), ("viewer", "/policies/a"), ("viewer", "")):
            with pytest.raises(InvalidRequest):
                users.grant(session, by=MACHINE, name="ann", role=role, scope=scope)
        with pytest.raises(NotFound):
            users.revoke(session, by=MACHINE, name="ann", role="operator", scope="/")
        assert users.revoke(session, by=MACHINE, name="ann", role="operator", scope="/policy/a").roles == ()
        assert [user.name for user in users.all(session)] == ["ann", "root"]
        assert users.all(session)[1] == users.get(session, "root")
        with pytest.raises(NotFound):
            users.get(session, "nobody")
        with pytest.raises(NotFound):
            users.set_disabled(session, by=MACHINE, name="nobody")


def test_the_last_administrator_stays(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "root", ("admin", "/"))
    add(catalog, access, "part", ("admin", "/policy/a"))
    add(catalog, access, "other", ("admin", "/"))
    with catalog.session() as session:
        access.users.set_disabled(session, by=MACHINE, name="other")
    with catalog.session() as session, pytest.raises(InvalidRequest):
        access.users.set_disabled(session, by=MACHINE, name="root")
    with catalog.session() as session, pytest.raises(InvalidRequest):
        access.users.revoke(session, by=MACHINE, name="root", role="admin")
    with catalog.session() as session:
        assert access.users.get(session, "root").roles == (("admin", "/"),)
        access.users.set_disabled(session, by=MACHINE, name="other", disabled=False)
        access.users.revoke(session, by=MACHINE, name="root", role="admin")


def test_an_administrator_of_a_part_stays_within_it(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "root", ("admin", "/"), password=PASSWORD)
    add(catalog, access, "part", ("admin", "/policy/a"))
    add(catalog, access, "ann", ("viewer", "/policy/a/source/x"))
    add(catalog, access, "bob", ("viewer", "/policy/a"), ("viewer", "/policy/b"))
    add(catalog, access, "new")
    part = principal(catalog, access, "part")
    with catalog.session() as session:
        users = access.users
        users.grant(session, by=part, name="new", role="operator", scope="/policy/a")
        users.grant(session, by=part, name="ann", role="admin", scope="/policy/a/source/x")
        users.set_disabled(session, by=part, name="ann")
        for scope in ("/", "/policy/ab", "/policy/b", "/repository"):
            with pytest.raises(Forbidden):
                users.grant(session, by=part, name="part", role="viewer", scope=scope)
        for name in ("root", "bob"):
            with pytest.raises(Forbidden):
                users.set_disabled(session, by=part, name=name)
            with pytest.raises(Forbidden):
                users.set_password(session, by=part, name=name, password_hash="x")
        with pytest.raises(Forbidden):
            users.revoke(session, by=part, name="bob", role="viewer", scope="/policy/a")


@pytest.mark.parametrize(("kind", "roles"), [("user", ()), ("oidc", ()), ("oidc", (("viewer", "/policy/a"),))])
def test_whom_nothing_puts_into_one_place_is_managed_by_those_who_manage_all(
    catalog: Catalog, access: Access, kind: str, roles: tuple[tuple[str, str], ...]
) -> None:
    add(catalog, access, "root", ("admin", "/"))
    add(catalog, access, "part", ("admin", "/policy/a"))
    add(catalog, access, "ann", *roles, kind=kind)
    part, root = principal(catalog, access, "part"), principal(catalog, access, "root")
    with catalog.session() as session:
        with pytest.raises(Forbidden):
            access.users.set_disabled(session, by=part, name="ann")
        with pytest.raises(Forbidden):
            access.tokens.create(session, by=part, name="x", user="ann")
        assert access.users.set_disabled(session, by=root, name="ann").disabled


@pytest.mark.parametrize("role", ["viewer", "operator", "restorer", "auditor"])
def test_who_is_no_administrator_changes_nobody(catalog: Catalog, access: Access, role: str) -> None:
    add(catalog, access, "root", ("admin", "/"))
    add(catalog, access, "ann", (role, "/"))
    ann = principal(catalog, access, "ann")
    users = access.users
    with catalog.session() as session:
        attempts: list[Callable[[], object]] = [
            lambda: users.add(session, by=ann, name="eve"),
            lambda: users.grant(session, by=ann, name="ann", role="admin"),
            lambda: users.grant(session, by=ann, name="ann", role="viewer"),
            lambda: users.revoke(session, by=ann, name="ann", role=role),
            lambda: users.set_disabled(session, by=ann, name="root"),
            lambda: users.set_password(session, by=ann, name="root", password_hash="x"),
        ]
        for attempt in attempts:
            with pytest.raises(Forbidden):
                attempt()


def test_a_token_of_an_administrator_gives_no_more_than_it_has(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "root", ("admin", "/"), password=PASSWORD)
    add(catalog, access, "ann")
    narrow = principal(catalog, access, "root", permissions=["user:admin", "backup:read"])
    with catalog.session() as session:
        users = access.users
        for role in ("admin", "viewer"):
            with pytest.raises(Forbidden):
                users.grant(session, by=narrow, name="ann", role=role)
        with pytest.raises(Forbidden):
            users.set_password(session, by=narrow, name="root", password_hash="x")
        users.set_disabled(session, by=narrow, name="ann")


def test_people_change_their_own_password_but_their_tokens_do_not(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "ann", ("viewer", "/"), password=PASSWORD)
    add(catalog, access, "agent", kind="agent")
    with_token = principal(catalog, access, "ann")
    in_person = access.login("ann", PASSWORD, "192.0.2.1")
    with catalog.session() as session:
        with pytest.raises(Forbidden):
            access.users.set_password(session, by=with_token, name="ann", password_hash="x")
        kept = access.passwords.hash("another horse battery", user="ann")
        access.users.set_password(session, by=in_person, name="ann", password_hash=kept)
        with pytest.raises(InvalidRequest):
            access.users.set_password(session, by=MACHINE, name="agent", password_hash=kept)
    assert access.login("ann", "another horse battery", "192.0.2.1").name == "ann"
