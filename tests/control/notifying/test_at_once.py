"""Targets and matchers that two change at the same moment, on PostgreSQL."""

from __future__ import annotations

import pytest

from backstay.catalog.database import Catalog
from backstay.control.notifying.matchers import Rule
from backstay.control.notifying.notifier import Notifier
from backstay.errors import InvalidRequest
from tests.control.at_once import first

ADDRESS = "json://other.example/x"
RULE = Rule(targets=("everything",))


@pytest.fixture
def database() -> str:
    return "postgresql"


def test_of_two_who_take_a_name_at_once_one_is_told_that_it_is_taken(new_catalog: Catalog, notifier: Notifier) -> None:
    def target() -> None:
        with new_catalog.session() as session:
            notifier.targets.create(session, name="new", address=ADDRESS)

    def matcher() -> None:
        with new_catalog.session() as session:
            notifier.matchers.create(session, name="new", rule=RULE)

    with first(new_catalog, target) as (session, told):
        notifier.targets.sync(session, {"new": ADDRESS})
    with pytest.raises(InvalidRequest, match="'new' already"):
        told.result()
    with first(new_catalog, matcher) as (session, told):
        notifier.matchers.create(session, name="new", rule=RULE)
    with pytest.raises(InvalidRequest, match="'new' already"):
        told.result()


def test_what_is_read_to_be_changed_is_what_others_made_of_it(new_catalog: Catalog, notifier: Notifier) -> None:
    with new_catalog.reading() as session:
        (target,), (matcher,) = notifier.targets.all(session), notifier.matchers.all(session)

    def of_target() -> int:
        with new_catalog.session() as session:
            return notifier.targets.get(session, target.id, to_change=True).version

    def of_matcher() -> int:
        with new_catalog.session() as session:
            return notifier.matchers.get(session, matcher.id, to_change=True).version

    with first(new_catalog, of_target) as (session, told):
        notifier.targets.update(session, target.id, enabled=False)
    assert told.result() == target.version + 1
    with first(new_catalog, of_matcher) as (session, told):
        notifier.matchers.update(session, matcher.id, enabled=False)
    assert told.result() == matcher.version + 1
