"""The first administrator, and tokens that are preset."""

from __future__ import annotations

import threading

import pytest

from backstay.catalog.database import Catalog
from backstay.control.access.access import Access
from backstay.control.access.passwords import Passwords
from backstay.control.access.principal import the_machine
from backstay.errors import InvalidRequest, Unauthorized
from backstay.testing import FakeClock
from tests.control.access.conftest import CHEAP
from tests.control.access.people import HERE, add
from tests.control.access.token_form import is_well_formed

PRESET = "bst_some_form_of_its_own_0123456789"


def test_the_first_start_makes_an_administrator_and_shows_its_token_once(access: Access) -> None:
    first = access.ensure_administrator(None)
    assert first is not None
    assert is_well_formed(first.text)
    assert first.text not in repr(first)
    found = access.authenticate_bearer(first.text, HERE)
    assert found.name == first.user == "admin"
    access.check(found, "user:admin", "/")
    assert access.ensure_administrator(None) is None


def test_a_preset_token_may_have_any_form(access: Access) -> None:
    assert access.ensure_administrator(PRESET) is None
    for _ in range(2):
        assert access.authenticate_bearer(PRESET, HERE).name == "admin"
        assert access.ensure_administrator(PRESET) is None


def test_another_preset_takes_the_place_of_the_old_one(access: Access) -> None:
    first = access.ensure_administrator(None)
    assert first is not None
    access.ensure_administrator(PRESET)
    access.ensure_administrator(PRESET + "2")
    assert access.authenticate_bearer(PRESET + "2", HERE).name == "admin"
    assert access.authenticate_bearer(first.text, HERE).name == "admin"
    with pytest.raises(Unauthorized) as caught:
        access.authenticate_bearer(PRESET, HERE)
    assert caught.value.reason == "revoked_token"


def test_a_preset_that_was_revoked_by_hand_stays_revoked(catalog: Catalog, access: Access) -> None:
    access.ensure_administrator(PRESET)
    with catalog.session() as session:
        token_id = access.tokens.of(session, by=the_machine(), user="admin")[0].id
        access.tokens.revoke(session, by=the_machine(), token_id=token_id)
    access.ensure_administrator(PRESET)
    with pytest.raises(Unauthorized):
        access.authenticate_bearer(PRESET, HERE)


def test_no_administrator_is_made_beside_another_unless_its_token_is_preset(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "ann", ("viewer", "/"))
    add(catalog, access, "root", ("admin", "/"))
    assert access.ensure_administrator(None) is None
    with catalog.session() as session:
        assert [user.name for user in access.users.all(session)] == ["ann", "root"]
    access.ensure_administrator(PRESET)
    access.check(access.authenticate_bearer(PRESET, HERE), "user:admin", "/")


def test_users_without_an_administrator_get_one(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "ann", ("viewer", "/"), ("admin", "/policy/a"))
    assert access.ensure_administrator(None) is not None


@pytest.mark.parametrize("preset", ["", "secret", "x" * 23, "x" * 513, "a b" * 20, "ä" * 30, "x" * 30 + "\n"])
def test_a_preset_that_could_be_guessed_or_sent_wrongly_is_refused(access: Access, preset: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        access.ensure_administrator(preset)
    assert not preset or preset not in f"{caught.value} {caught.value.hint}"
    assert access.ensure_administrator(None) is not None


def test_of_servers_that_start_at_once_one_makes_the_administrator(catalog: Catalog) -> None:
    made, start = [], threading.Barrier(4)

    def server() -> None:
        access = Access(catalog, FakeClock(), passwords=Passwords(CHEAP))
        start.wait()
        made.append(access.ensure_administrator(None))

    threads = [threading.Thread(target=server) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4
    assert sum(token is not None for token in made) == 1
