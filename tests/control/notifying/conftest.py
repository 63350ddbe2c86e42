"""Somebody who is told of everything."""

from __future__ import annotations

import pytest

from backstay.catalog.database import Catalog
from backstay.control.metrics.expectations import Expectations
from backstay.control.notifying.alerts import Alerts
from backstay.control.notifying.matchers import Rule
from backstay.control.notifying.notifier import Notifier
from backstay.control.notifying.settling import Settling
from backstay.testing.clock import FakeClock
from tests.control.catalogs import (
    catalog_server,
    clock,
    database,
    kept_postgresql,
    new_catalog,
    postgresql_template,
    sqlite_template,
)
from tests.control.notifying.rows import Mailbox
from tests.control.notifying.sink import sink

__all__ = [
    "catalog_server",
    "clock",
    "database",
    "kept_postgresql",
    "new_catalog",
    "postgresql_template",
    "sink",
    "sqlite_template",
]


ADDRESS = "json://everything.example/hook"


class Expected:
    """What is expected: a test puts in what it needs."""

    def __init__(self) -> None:
        self.now = Expectations()

    def __call__(self) -> Expectations:
        return self.now


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def expected() -> Expected:
    return Expected()


@pytest.fixture
def notifier(new_catalog: Catalog, clock: FakeClock, mailbox: Mailbox) -> Notifier:
    made = Notifier(new_catalog, clock, mailbox)
    with new_catalog.session() as session:
        made.targets.create(session, name="everything", address=ADDRESS)
        made.matchers.create(session, name="everything", rule=Rule(targets=("everything",)))
    return made


@pytest.fixture
def alerts(new_catalog: Catalog, clock: FakeClock, notifier: Notifier, expected: Expected) -> Alerts:
    return Alerts(new_catalog, clock, notifier, expected=expected)


@pytest.fixture
def settling(new_catalog: Catalog, clock: FakeClock, notifier: Notifier, alerts: Alerts) -> Settling:
    return Settling(new_catalog, clock, notifier, alerts)
