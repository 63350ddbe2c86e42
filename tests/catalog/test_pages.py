"""Pages: whatever comes or goes between them, nothing is doubled or passed over."""

from __future__ import annotations

import base64
import random
from datetime import UTC, datetime, timedelta
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from backstay.catalog.database import Catalog
from backstay.catalog.models import Backup, User
from backstay.catalog.pages import MAXIMUM_LIMIT, Order, Page, page_of
from backstay.errors import InvalidRequest

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NEWEST = Order(name="backups", keys=(Backup.time, Backup.id))
OLDEST = Order(name="oldest", keys=(Backup.time, Backup.id), descending=False)
NAMES = Order(name="users", keys=(User.name,), descending=False)


def backup(number: int) -> Backup:
    return Backup(
        id=f"{number:026d}",
        repository="r",
        source="s",
        type="full",
        host="h",
        time=BEGIN + timedelta(microseconds=number // 3),  # some at the same moment
        recorded_at=BEGIN,
    )


def pages(catalog: Catalog, order: Order, limit: int) -> list[list[int]]:
    found, cursor = [], None
    while True:
        with catalog.reading() as session:
            page = page_of(session, select(Backup), order, limit=limit, cursor=cursor)
        found.append([int(row.id) for row in page.items])
        if (cursor := page.next) is None:
            return found


def test_pages_have_all_rows_in_order(catalog: Catalog) -> None:
    numbers = list(range(20))
    random.Random(1).shuffle(numbers)
    with catalog.session() as session:
        session.add_all(map(backup, numbers))
    for limit in (1, 3, 19, 20, 21):
        found = pages(catalog, NEWEST, limit)
        assert [*chain(*found)] == list(range(19, -1, -1))
        assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
        assert [*chain(*pages(catalog, OLDEST, limit))] == list(range(20))


def test_rows_that_come_and_go_between_pages_disturb_no_others(catalog: Catalog) -> None:
    with catalog.session() as session:
        session.add_all(backup(number) for number in range(0, 20, 2))
    with catalog.reading() as session:
        first = page_of(session, select(Backup), NEWEST, limit=4)
    with catalog.session() as session:
        session.add_all([backup(19), backup(3)])
        session.delete(session.get_one(Backup, first.items[-1].id))
    with catalog.reading() as session:
        second = page_of(session, select(Backup), NEWEST, limit=4, cursor=first.next)
    assert [int(row.id) for row in first.items + second.items] == [18, 16, 14, 12, 10, 8, 6, 4]


def test_an_empty_list_is_one_page(sqlite_catalog: Catalog) -> None:
    assert pages(sqlite_catalog, NEWEST, 5) == [[]]


def test_a_page_can_be_of_something_else(sqlite_catalog: Catalog) -> None:
    assert Page(items=(1, 2), next="x").map(str) == Page(items=("1", "2"), next="x")


@pytest.mark.parametrize("limit", [0, -1, MAXIMUM_LIMIT + 1, 10**9])
def test_limits_that_cannot_be_are_refused(sqlite_catalog: Catalog, limit: int) -> None:
    with sqlite_catalog.reading() as session, pytest.raises(InvalidRequest, match="limit"):
        page_of(session, select(Backup), NEWEST, limit=limit)


@pytest.fixture(scope="module")
def cursor(tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalog, str]:
    catalog = Catalog.open(f"sqlite:///{tmp_path_factory.mktemp('pages') / 'catalog.db'}")
    catalog.migrate()
    with catalog.session() as session:
        session.add_all(map(backup, range(3)))
    with catalog.reading() as session:
        found = page_of(session, select(Backup), NEWEST, limit=1).next
    assert found is not None
    return catalog, found


def refused(catalog: Catalog, text: str, order: Order = NEWEST) -> bool:
    with catalog.reading() as session:
        try:
            page_of(session, select(Backup), order, cursor=text)
        except InvalidRequest as error:
            return error.title.startswith("cursor ")
    return False


@pytest.mark.property
@given(text=st.one_of(st.text(), st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode())))
def test_no_other_text_is_a_cursor(cursor: tuple[Catalog, str], text: str) -> None:
    assert refused(cursor[0], text)


@pytest.mark.property
@given(at=st.integers(0, 200), bit=st.integers(0, 7), cut=st.booleans())
def test_a_cursor_that_was_changed_is_refused(cursor: tuple[Catalog, str], at: int, bit: int, cut: bool) -> None:
    catalog, good = cursor
    data = bytearray(base64.urlsafe_b64decode(good + "=" * (-len(good) % 4)))
    at %= len(data)
    data[at] ^= 1 << bit
    changed = bytes(data[:at]) if cut else bytes(data)
    assert refused(catalog, base64.urlsafe_b64encode(changed).decode().rstrip("="))


def test_a_cursor_of_another_list_is_refused(cursor: tuple[Catalog, str]) -> None:
    catalog, good = cursor
    assert refused(catalog, good, OLDEST)
    assert refused(catalog, good + "A" * 5000)
    assert not refused(catalog, good)
