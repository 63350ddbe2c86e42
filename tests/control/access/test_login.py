"""Login by name and password."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select, update

from backstay.catalog.database import Catalog
from backstay.catalog.models import User
from backstay.control.access.access import Access
from backstay.control.access.passwords import Passwords
from backstay.errors import InvalidRequest, RateLimited, Unauthorized
from backstay.testing import FakeClock
from tests.control.access.conftest import CHEAP
from tests.control.access.people import HERE, PASSWORD, add


class Counting(PasswordHasher):
    """Says how often it compared."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.compared = 0

    def verify(self, hash: str | bytes, password: str | bytes) -> Any:  # noqa: A002 - its own word
        self.compared += 1
        return super().verify(hash, password)


def refused(access: Access, name: str, password: str) -> str:
    with pytest.raises(Unauthorized) as caught:
        access.login(name, password, HERE)
    return f"{caught.value.reason}: {caught.value}"


def test_the_right_password_lets_in(catalog: Catalog, access: Access) -> None:
    id_ = add(catalog, access, "ann", ("viewer", "/policy/a"), password=PASSWORD)
    found = access.login("Ann", PASSWORD, HERE)
    assert (found.user_id, found.name, found.token_id, found.address) == (id_, "ann", None, HERE)
    assert found.scopes("backup:read") == ("/policy/a",)


def test_wrong_passwords_and_unknown_users_are_told_alike(catalog: Catalog, access: Access, clock: FakeClock) -> None:
    add(catalog, access, "ann", password=PASSWORD)
    add(catalog, access, "bob")
    answers = set()
    for name, password in (
        ("ann", PASSWORD + "x"),
        ("ann", ""),
        ("ann", PASSWORD.upper()),
        ("bob", PASSWORD),
        ("bob", "nobody has this password"),
        ("nobody", PASSWORD),
        ("ann" + "x" * 100, PASSWORD),
        ("ann", "\ud800"),
        ("ann", "x" * 100_000),
    ):
        answers.add(refused(access, name, password))
        clock.advance(60)
    assert len(answers) == 1


def test_an_unknown_user_costs_as_much_as_a_wrong_password(catalog: Catalog, clock: FakeClock) -> None:
    hasher = Counting(time_cost=1, memory_cost=8, parallelism=1)
    access = Access(catalog, clock, passwords=Passwords(hasher))
    add(catalog, access, "ann", password=PASSWORD)
    for n, name in enumerate(("ann", "nobody"), 1):
        refused(access, name, "wrong")
        assert hasher.compared == n


def test_guessing_is_slowed_down_for_one_name_and_for_one_address(
    catalog: Catalog, access: Access, clock: FakeClock
) -> None:
    add(catalog, access, "ann", password=PASSWORD)
    for _ in range(5):
        refused(access, "ann", "wrong")
    for name in ("ann", "ANN"):
        with pytest.raises(RateLimited) as caught:
            access.login(name, PASSWORD, HERE)
        assert caught.value.retry_after == 60
    assert access.login("ann", PASSWORD, "198.51.100.9").name == "ann"
    for n in range(23):
        refused(access, f"user{n}", "wrong")
    with pytest.raises(RateLimited):
        access.login("somebody", PASSWORD, HERE)
    clock.advance(60)
    assert access.login("ann", PASSWORD, HERE).name == "ann"


def test_an_old_hash_is_made_anew_at_login(catalog: Catalog, access: Access, clock: FakeClock) -> None:
    add(catalog, access, "ann", password=PASSWORD)

    def kept() -> str | None:
        with catalog.session() as session:
            return session.scalars(select(User.password_hash)).one()

    old = kept()
    access.login("ann", PASSWORD, HERE)
    assert kept() == old
    stronger = Access(catalog, clock, passwords=Passwords(PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)))
    refused(stronger, "ann", "wrong")
    assert kept() == old
    stronger.login("ann", PASSWORD, HERE)
    assert (new := kept()) is not None
    assert "m=16,t=2" in new
    assert access.login("ann", PASSWORD, HERE).name == "ann"


def test_the_usual_parameters_are_those_of_rfc_9106() -> None:
    kept = Passwords().hash(PASSWORD, user="ann")
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_a_damaged_hash_lets_nobody_in(catalog: Catalog, access: Access) -> None:
    add(catalog, access, "ann", password=PASSWORD)
    for damaged in ("", "x", "$argon2id$v=19$m=8,t=1,p=1$AAAA"):
        with catalog.session() as session:
            session.execute(update(User).values(password_hash=damaged))
        with pytest.raises((InvalidRequest, Unauthorized)) as caught:
            access.login("ann", PASSWORD, HERE)
        assert damaged not in str(caught.value) or not damaged


@pytest.mark.parametrize("password", ["", "short", "elevenchars", "x" * 257, "annannannann1", "ann-is-great-"])
def test_passwords_that_are_easily_guessed_are_refused(password: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Passwords(CHEAP).hash(password, user="ann")
    assert not password or password not in str(caught.value)


def test_the_same_characters_are_the_same_password() -> None:
    passwords = Passwords(CHEAP)
    kept = passwords.hash("caf\u00e9 au lait avec", user="ann")
    assert passwords.fits("cafe\u0301 au lait avec", kept)
    assert not passwords.fits("cafe au lait avec", kept)


def test_only_two_are_compared_at_once() -> None:
    class Slow(PasswordHasher):
        def __init__(self) -> None:
            super().__init__(time_cost=1, memory_cost=8, parallelism=1)
            self.now = self.most = 0
            self.lock = threading.Lock()
            self.pair = threading.Barrier(2)

        def verify(self, hash: str | bytes, password: str | bytes) -> Any:  # noqa: A002
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            self.pair.wait(60)  # two do meet
            with self.lock:
                self.now -= 1
            return super().verify(hash, password)

    slow = Slow()
    passwords = Passwords(slow)
    threads = [threading.Thread(target=passwords.fits, args=(PASSWORD, None)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert slow.most == 2
