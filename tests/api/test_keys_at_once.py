"""The same Idempotency-Key twice at the same moment, on PostgreSQL."""

from __future__ import annotations

import pytest

from backstay.api.idempotency import AT_WORK, Keys
from backstay.catalog.database import Catalog
from backstay.catalog.models import IdempotencyKey
from backstay.errors import JobConflict
from backstay.testing import FakeClock
from tests.control.at_once import first
from tests.control.catalogs import catalog_server, clock, kept_postgresql, new_catalog, postgresql_template

__all__ = ["catalog_server", "clock", "kept_postgresql", "new_catalog", "postgresql_template"]


@pytest.fixture
def database() -> str:
    return "postgresql"


def test_a_key_that_a_crash_left_is_taken_over_by_one_of_two(new_catalog: Catalog, clock: FakeClock) -> None:
    keys = Keys(catalog=new_catalog, clock=clock)
    left = keys.begin("ann", "key", "digest")
    clock.advance(AT_WORK.total_seconds())
    # Both had found by then that the key is there: to insert it would have waited for the other.
    with first(new_catalog, lambda: keys._known("ann", "key", "digest")) as (session, told):
        session.get_one(IdempotencyKey, ("ann", "key")).created_at = clock.now()  # another is at work now
        session.flush()
    with pytest.raises(JobConflict, match="at work"):
        told.result()
    clock.advance(AT_WORK.total_seconds())
    assert keys.begin("ann", "key", "digest") == left
