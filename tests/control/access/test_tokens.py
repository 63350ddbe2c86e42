"""Tokens: how they look, whom they speak for, and when they do no more."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta
from ipaddress import IPv6Address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import event, select, update

from backstay.catalog.database import Catalog
from backstay.catalog.models import Token
from backstay.control.access.access import Access
from backstay.control.access.networks import is_from, is_part_of, parse_network
from backstay.control.access.principal import the_machine
from backstay.control.access.token_text import new_token
from backstay.errors import Forbidden, InvalidRequest, NotFound, RateLimited, Unauthorized
from backstay.testing import FakeClock
from tests.control.access.people import HERE, PASSWORD, add, at, principal, token
from tests.control.access.token_form import is_well_formed


def refused(access: Access, text: str, address: str = HERE) -> str:
    with pytest.raises(Unauthorized) as caught:
        access.authenticate_bearer(text, address)
    assert (caught.value.title, caught.value.cause) == ("nobody is known by these credentials", "")
    return caught.value.reason


def test_a_token_has_the_form_that_scanners_know() -> None:
    made = new_token(os.urandom)
    prefix, id_, secret = made.text.split("_")
    assert (prefix, id_, len(secret)) == ("bkp", made.id, 49)
    assert is_well_formed(made.text)
    assert made.text not in repr(made)
    least, most = new_token(lambda n: b"\0" * n), new_token(lambda n: b"\xff" * n)
    assert len(least.text) == len(most.text) == len(made.text)
    assert is_well_formed(least.text)
    assert is_well_formed(most.text)


@given(st.binary(min_size=5, max_size=5), st.binary(min_size=32, max_size=32), st.data())
def test_one_wrong_character_is_noticed(id_: bytes, secret: bytes, data: st.DataObject) -> None:
    text = new_token(lambda n: id_ if n == 5 else secret).text
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("abcXYZ019_"))
    changed = text[:place] + other + text[place + 1 :]
    assert is_well_formed(changed) == (changed == text)


def test_only_the_digest_is_kept(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "ann", ("viewer", "/"))
    made = token(catalog, access, "ann")
    with catalog.session() as session:
        row = session.scalars(select(Token)).one()
        assert row.secret_digest == hashlib.sha256(made.text.encode()).hexdigest()
        assert made.text.rpartition("_")[2] not in str(vars(row))
    assert made.text not in repr(made)


def test_a_token_speaks_for_its_owner(catalog: Catalog, access: Access) -> None:
    id_ = add(catalog, access, "ann", ("operator", "/policy/files"))
    made = token(catalog, access, "ann")
    found = access.authenticate_bearer(made.text, HERE)
    assert (found.user_id, found.name, found.token_id, found.address) == (id_, "ann", made.token.id, HERE)
    access.check(found, "backup:create", "/policy/files/source/home")
    assert found.scopes("backup:create") == ("/policy/files",)
    with pytest.raises(Forbidden) as caught:
        access.check(found, "backup:create", "/policy/other")
    assert caught.value.reason == "missing_permission"
    with pytest.raises(Forbidden):
        access.check(found, "backup:delete", "/policy/files")


def test_limits_take_away_and_give_nothing(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "ann", ("operator", "/policy/files"))
    found = principal(
        catalog,
        access,
        "ann",
        permissions=["backup:read", "backup:delete"],
        scopes=["/policy/files/source/a", "/policy/b"],
    )
    assert found.may("backup:read", "/policy/files/source/a")
    assert not found.may("backup:read", "/policy/files")
    assert not found.may("backup:delete", "/policy/files/source/a")
    assert not found.may("backup:read", "/policy/b")


@pytest.mark.parametrize("text", ["", "x", "bst_wrong", "a.b.c", "bkp_", "x" * 513, "\ud800", "é" * 40])
def test_what_is_no_token_is_refused(access: Access, text: str) -> None:
    assert refused(access, text) == "unknown_token"


def test_a_wrong_secret_is_refused_as_an_unknown_one(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "ann", ("viewer", "/"))
    text = token(catalog, access, "ann").text
    for wrong in (text[:-1] + ("a" if text[-1] != "a" else "b"), text.upper(), text + " ", text[:-6]):
        assert refused(access, wrong) == "unknown_token"


def test_unknown_and_wrong_tokens_cost_the_same(catalog: Catalog, access: Access) -> None:
    """Both are one look-up of a digest: nothing that is done depends on how much of a token is right."""
    add(catalog, access, "ann", ("viewer", "/"))
    text = token(catalog, access, "ann").text
    statements: list[str] = []
    event.listen(catalog._reading, "before_cursor_execute", lambda _c, _u, statement, *_: statements.append(statement))

    def cost(sent: str) -> list[str]:
        statements.clear()
        refused(access, sent)
        return list(statements)

    unknown = cost("bkp_00000000_" + "x" * 49)
    assert len(unknown) == 1  # one SELECT
    assert cost(text[:-1] + "~") == unknown  # a right id and a secret that is right but for its end
    assert cost("nonsense") == unknown


def test_a_token_ends(catalog: Catalog, access: Access, clock: FakeClock) -> None:
    add(catalog, access, "ann", ("viewer", "/"))
    text = token(catalog, access, "ann", expires_at=clock.now() + timedelta(hours=1)).text
    clock.advance(3599)
    assert access.authenticate_bearer(text, HERE).name == "ann"
    clock.advance(1)
    assert refused(access, text) == "expired_token"
    for end in (clock.now(), at("2020-01-01T00:00:00+00:00"), at("2027-01-01T00:00:00")):
        with pytest.raises(InvalidRequest):
            token(catalog, access, "ann", expires_at=end)


def test_a_revoked_token_is_worthless_at_once(catalog: Catalog, access: Access, clock: FakeClock) -> None:
    add(catalog, access, "ann", ("viewer", "/"))
    made = token(catalog, access, "ann")
    ann = access.authenticate_bearer(made.text, HERE)
    with catalog.session() as session:
        first = access.tokens.revoke(session, by=ann, token_id=made.token.id).revoked_at
    assert refused(access, made.text) == "revoked_token"
    clock.advance(5)
    with catalog.session() as session:
        assert access.tokens.revoke(session, by=the_machine(), token_id=made.token.id).revoked_at == first
        with pytest.raises(NotFound):
            access.tokens.revoke(session, by=the_machine(), token_id="00000000")


def test_a_user_who_is_shut_out_takes_its_tokens_along(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "root", ("admin", "/"))
    add(catalog, access, "ann", ("viewer", "/"), password=PASSWORD)
    text = token(catalog, access, "ann").text
    with catalog.session() as session:
        access.users.set_disabled(session, by=the_machine(), name="ann")
    assert refused(access, text) == "disabled_user"
    with pytest.raises(Unauthorized) as caught:
        access.login("ann", PASSWORD, HERE)
    assert caught.value.reason == "disabled_user"
    with catalog.session() as session:
        access.users.set_disabled(session, by=the_machine(), name="ann", disabled=False)
    assert access.authenticate_bearer(text, HERE).name == "ann"


def test_a_role_that_is_taken_away_is_gone_from_tokens(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "root", ("admin", "/"))
    add(catalog, access, "ann", ("operator", "/"), ("viewer", "/policy/a"))
    text = token(catalog, access, "ann", permissions=["backup:create", "backup:read"]).text
    with catalog.session() as session:
        access.users.revoke(session, by=the_machine(), name="ann", role="operator")
    found = access.authenticate_bearer(text, HERE)
    assert found.scopes("backup:create") == ()
    assert found.scopes("backup:read") == ("/policy/a",)


@pytest.mark.parametrize(
    ("networks", "address", "allowed"),
    [
        (["192.0.2.0/24"], "192.0.2.255", True),
        (["192.0.2.0/24"], "192.0.3.0", False),
        (["192.0.2.0/24"], "::ffff:192.0.2.1", True),  # the same address through a socket for IPv6
        (["::ffff:192.0.2.0/120"], "192.0.2.1", True),
        (["::ffff:192.0.2.0/120"], "192.0.3.1", False),
        (["0.0.0.0/0"], "2001:db8::1", False),
        (["::/0"], "192.0.2.1", False),
        (["::/0"], "::ffff:192.0.2.1", False),
        (["2001:db8::/32"], "2001:db8:0:1::1", True),
        (["2001:db8::/32"], "2001:db9::1", False),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["192.0.2.1"], "192.0.2.1", True),
        (["10.0.0.0/8", "2001:db8::/32"], "10.255.0.1", True),
        (["0.0.0.0/0", "::/0"], "", False),
        (["0.0.0.0/0", "::/0"], "/run/socket", False),
        (["0.0.0.0/0", "::/0"], "192.0.2.1:80", False),
        ([], "192.0.2.1", False),
    ],
)
def test_a_token_may_be_bound_to_networks(
    catalog: Catalog, access: Access, networks: list[str], address: str, allowed: bool
) -> None:
    add(catalog, access, "ann", ("viewer", "/"))
    text = token(catalog, access, "ann", networks=networks).text
    if allowed:
        assert access.authenticate_bearer(text, address).address == address
    else:
        assert refused(access, text, address) == "wrong_network"


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "anywhere", "", "10.0.0", "fe80::1%eth0/64"])
def test_what_is_no_network_is_refused(catalog: Catalog, access: Access, text: str) -> None:
    add(catalog, access, "ann", ("viewer", "/"))
    with pytest.raises(InvalidRequest):
        token(catalog, access, "ann", networks=[text])


@given(st.ip_addresses(), st.integers(0, 128), st.integers(0, 128))
@example(IPv6Address("::ffff:0:0"), 0, 96)
def test_a_part_of_a_network_admits_no_others(address: object, wide: int, narrow: int) -> None:
    bits = 32 if "." in str(address) else 128
    outer, inner = (
        parse_network(str(ip_network(f"{address}/{min(length, bits)}", strict=False))) for length in (wide, narrow)
    )
    # Networks of mapped addresses are those of IPv4, which none of IPv6 admits.
    alike = (":" in inner) == (":" in outer)
    assert is_part_of(inner, [outer]) == (alike and (min(narrow, bits) >= min(wide, bits) or inner == outer))
    if is_part_of(inner, [outer]) and is_from(str(address), [inner]):
        assert is_from(str(address), [outer])


def test_when_it_was_used_is_written_once_a_minute(catalog: Catalog, access: Access, clock: FakeClock) -> None:
    add(catalog, access, "ann", ("viewer", "/"))
    made = token(catalog, access, "ann")

    def noted() -> float | None:
        with catalog.session() as session:
            at_ = session.scalars(select(Token.last_used_at)).one()
        return None if at_ is None else at_.timestamp()

    assert noted() is None
    first = clock.now().timestamp()
    access.authenticate_bearer(made.text, HERE)
    assert noted() == first
    clock.advance(59)
    access.authenticate_bearer(made.text, HERE)
    assert noted() == first
    clock.advance(1)
    access.authenticate_bearer(made.text, HERE)
    assert noted() == first + 60


def test_a_catalog_that_cannot_be_written_keeps_nobody_from_reading(
    catalog: Catalog, access: Access, clock: FakeClock
) -> None:
    add(catalog, access, "ann", ("viewer", "/"))
    made = token(catalog, access, "ann")

    def read_only(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("UPDATE"):
            import sqlite3

            raise sqlite3.OperationalError("attempt to write a readonly database")

    event.listen(catalog.engine, "before_cursor_execute", read_only)
    assert access.authenticate_bearer(made.text, HERE).name == "ann"
    event.remove(catalog.engine, "before_cursor_execute", read_only)
    clock.advance(60)
    access.authenticate_bearer(made.text, HERE)
    with catalog.session() as session:
        assert session.scalars(select(Token.last_used_at)).one() == clock.now()


def test_who_tries_tokens_is_slowed_down(catalog: Catalog, access: Access, clock: FakeClock) -> None:
    add(catalog, access, "ann", ("viewer", "/"))
    text = token(catalog, access, "ann").text
    for n in range(60):
        refused(access, f"guess {n}")
    with pytest.raises(RateLimited) as caught:
        access.authenticate_bearer(text, HERE)
    assert caught.value.retry_after == 60
    assert access.authenticate_bearer(text, "198.51.100.1").name == "ann"
    clock.advance(60)
    assert access.authenticate_bearer(text, HERE).name == "ann"


def test_a_token_makes_none_that_may_more(catalog: Catalog, access: Access, clock: FakeClock) -> None:
    add(catalog, access, "ann", ("operator", "/"))
    soon = clock.now() + timedelta(days=1)
    by = principal(
        catalog,
        access,
        "ann",
        permissions=["backup:read", "token:self"],
        scopes=["/policy/a"],
        networks=["192.0.2.0/24"],
        expires_at=soon,
    )
    made = token(catalog, access, None, by=by)
    assert made.token.limits == by.limits
    narrower = token(
        catalog,
        access,
        None,
        by=by,
        permissions=["backup:read"],
        scopes=["/policy/a/source/x"],
        networks=["192.0.2.128/25"],
        expires_at=soon - timedelta(hours=1),
    )
    assert narrower.token.limits.permissions == frozenset({"backup:read"})
    wider: list[dict[str, object]] = [
        {"permissions": ["backup:read", "backup:create"]},
        {"scopes": ["/"]},
        {"scopes": ["/policy/a", "/policy/ab"]},
        {"networks": ["192.0.0.0/16"]},
        {"networks": ["::/0"]},
        {"expires_at": soon + timedelta(seconds=1)},
    ]
    for limits in wider:
        with pytest.raises(Forbidden):
            token(catalog, access, None, by=by, **limits)


def test_who_may_not_make_tokens_makes_none(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "ann", ("operator", "/"))
    by = principal(catalog, access, "ann", permissions=["backup:read"])
    with pytest.raises(Forbidden):
        token(catalog, access, None, by=by)
    with catalog.session() as session, pytest.raises(Forbidden):
        access.tokens.of(session, by=by)


def test_tokens_of_others_are_for_those_who_manage_them(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "root", ("admin", "/"))
    add(catalog, access, "part", ("admin", "/policy/a"))
    add(catalog, access, "ann", ("operator", "/policy/a"))
    add(catalog, access, "bob", ("viewer", "/"))
    theirs = {name: token(catalog, access, name).token.id for name in ("root", "ann", "bob")}
    part, ann = principal(catalog, access, "part"), principal(catalog, access, "ann")
    token(catalog, access, "ann", by=part)
    with catalog.session() as session:
        assert len(access.tokens.of(session, by=part, user="ann")) == 3
        access.tokens.revoke(session, by=part, token_id=theirs["ann"])
        for by, user in ((part, "root"), (part, "bob"), (ann, "bob"), (ann, "root"), (ann, "part")):
            with pytest.raises(Forbidden):
                access.tokens.create(session, by=by, name="x", user=user)
            with pytest.raises(Forbidden):
                access.tokens.of(session, by=by, user=user)
            if user in theirs:
                with pytest.raises(Forbidden):
                    access.tokens.revoke(session, by=by, token_id=theirs[user])
        with pytest.raises(Forbidden):
            access.tokens.create(session, by=ann, name="x", user="nobody")  # not told whether it is there
        with pytest.raises(NotFound):
            access.tokens.create(session, by=part, name="x", user="nobody")
        with pytest.raises(Forbidden):
            access.tokens.of_all(session, by=part)
        assert len(access.tokens.of_all(session, by=the_machine())) == 6


def test_a_token_for_another_user_stays_within_what_its_maker_manages(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "part", ("admin", "/policy/a"), ("viewer", "/"))
    add(catalog, access, "carol", ("viewer", "/policy/a/source/x"))
    part = principal(catalog, access, "part")
    text = token(catalog, access, "carol", by=part).text
    with pytest.raises(Forbidden):
        token(catalog, access, "carol", by=part, scopes=["/policy/b"])
    with catalog.session() as session:
        access.users.grant(session, by=the_machine(), name="carol", role="admin")
    carol = access.authenticate_bearer(text, HERE)
    assert carol.scopes("backup:delete") == carol.scopes("backup:read") == ("/policy/a",)


def test_a_token_of_a_damaged_row_allows_nothing_more(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "ann", ("viewer", "/"))
    made = token(catalog, access, "ann")
    with catalog.session() as session:
        session.execute(update(Token).values(permissions=["backup:delete", "nonsense"], scopes=["nonsense", "/"]))
    assert access.authenticate_bearer(made.text, HERE).grants == ()


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "\x1b[31m"])
def test_a_token_has_a_name_that_can_be_shown(catalog: Catalog, access: Access, name: str) -> None:
    add(catalog, access, "ann", ("viewer", "/"))
    with catalog.session() as session, pytest.raises(InvalidRequest):
        access.tokens.create(session, by=the_machine(), user="ann", name=name)
