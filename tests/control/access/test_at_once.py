"""Changes of who may do what that are made at the same moment, on PostgreSQL."""

from __future__ import annotations

from functools import partial

import pytest

from backstay.catalog.database import Catalog
from backstay.control.access.access import Access
from backstay.control.access.claims import Claims
from backstay.control.access.passwords import Passwords
from backstay.control.access.principal import the_machine
from backstay.control.access.sign_in import signed_in
from backstay.errors import InvalidRequest, Unauthorized
from backstay.testing import FakeClock
from backstay.trust.authority import Authority
from tests.control.access.conftest import CHEAP
from tests.control.access.people import HERE, add, principal, token
from tests.control.at_once import first

MACHINE = the_machine()


@pytest.fixture
def database() -> str:
    return "postgresql"


@pytest.fixture
def catalog(new_catalog: Catalog) -> Catalog:
    return new_catalog


@pytest.fixture
def access(catalog: Catalog, clock: FakeClock) -> Access:
    return Access(catalog, clock, passwords=Passwords(CHEAP))


def test_two_administrators_who_shut_each_other_out_leave_one(catalog: Catalog, access: Access) -> None:
    for name in ("one", "two"):
        add(catalog, access, name, ("admin", "/"))

    def disable() -> None:
        with catalog.session() as session:
            access.users.set_disabled(session, by=MACHINE, name="two")

    def demote() -> None:
        with catalog.session() as session:
            access.users.revoke(session, by=MACHINE, name="two", role="admin")

    with first(catalog, disable) as (session, told):
        access.users.set_disabled(session, by=MACHINE, name="one")
    with pytest.raises(InvalidRequest, match="nobody would be left"):
        told.result()
    with catalog.session() as session:
        access.users.set_disabled(session, by=MACHINE, name="one", disabled=False)
    with first(catalog, demote) as (session, told):
        access.users.revoke(session, by=MACHINE, name="one", role="admin")
    with pytest.raises(InvalidRequest, match="nobody would be left"):
        told.result()


def test_of_two_who_take_a_name_at_once_one_is_told_that_it_is_taken(catalog: Catalog, access: Access) -> None:
    with first(catalog, partial(add, catalog, access, "ann")) as (session, told):
        access.users.add(session, by=MACHINE, name="ann")
    with pytest.raises(InvalidRequest, match="ann already"):
        told.result()


def test_a_role_that_two_give_at_once_is_given_once(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "ann")

    def grant() -> None:
        with catalog.session() as session:
            access.users.grant(session, by=MACHINE, name="ann", role="viewer")

    with first(catalog, grant) as (session, told):
        access.users.grant(session, by=MACHINE, name="ann", role="viewer")
    told.result()
    with catalog.reading() as session:
        assert access.users.get(session, "ann").roles == (("viewer", "/"),)


def test_an_agent_that_two_invite_at_once_is_one_user_with_two_join_tokens(catalog: Catalog, clock: FakeClock) -> None:
    agents = Access(catalog, clock, passwords=Passwords(CHEAP), authority=Authority.generate(clock)).agents

    def invite() -> str:
        with catalog.session() as session:
            return agents.invite(session, by=MACHINE, name="web").text

    with first(catalog, invite) as (session, told):
        one = agents.invite(session, by=MACHINE, name="web").text
    assert one != told.result()


def test_somebody_who_signs_in_twice_at_once_becomes_one_user(catalog: Catalog, access: Access) -> None:
    claims = Claims(subject="0" * 64, name="ann", grants=())
    sign_in = partial(signed_in, catalog, access.users, access.audit, claims, address=HERE)
    with first(catalog, sign_in) as (session, told):
        made = access.users.add(session, by=MACHINE, name="ann", kind="oidc", subject=claims.subject)
    assert told.result().user_id == made.id


def test_a_token_gives_nothing_once_whoever_revokes_it_had_their_turn(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "ann", ("admin", "/"))
    made = token(catalog, access, "ann")
    ann = access.authenticate_bearer(made.text, HERE)

    def make_another() -> None:
        with catalog.session() as session:
            access.tokens.create(session, by=access.take_turn(session, ann), name="lasting")

    with first(catalog, make_another) as (session, told):
        access.tokens.revoke(session, by=MACHINE, token_id=made.token.id)
    with pytest.raises(Unauthorized):
        told.result()


def test_roles_that_are_taken_in_somebody_elses_turn_are_gone(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "root", ("admin", "/"))
    add(catalog, access, "ann", ("admin", "/"))
    ann = principal(catalog, access, "ann")

    def left() -> tuple[str, ...]:
        with catalog.session() as session:
            return access.take_turn(session, ann).scopes("user:admin")

    with first(catalog, left) as (session, told):
        access.users.revoke(session, by=MACHINE, name="ann", role="admin")
    assert told.result() == ()


def test_what_others_changed_in_their_turn_is_seen_by_version(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "ann")

    def seen() -> int:
        with catalog.session() as session:
            before = access.users.get(session, "ann").version
            access.take_turn(session, MACHINE)
            assert before == 1
            return access.users.get(session, "ann").version

    with first(catalog, seen) as (session, told):
        access.users.grant(session, by=MACHINE, name="ann", role="viewer")
    assert told.result() == 2
