"""What a manager asks of its stores is counted for the metrics."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from backstay.catalog.database import Catalog
from backstay.catalog.models import Counter
from backstay.control.manager.manager import BackupManager
from backstay.control.metrics.names import REQUESTS
from backstay.storage.memory import MemoryStorage
from backstay.storage.metered import Metered
from backstay.testing import FakeClock
from tests.control.manager.conftest import PASSWORD


def test_requests_to_a_measured_store_are_counted(
    tmp_path: Path, documents: Path, environ: dict[str, str], clock: FakeClock
) -> None:
    store, database = Metered(MemoryStorage(), clock=clock), tmp_path / "catalog.db"
    with BackupManager(store, password=PASSWORD, database=database, environ=environ, clock=clock) as backups:
        backups.create_backup(documents)
        catalog = backups.records.catalog
        first = counted(catalog)
        assert first > 0
        backups.create_backup(documents)
        assert counted(catalog) > first


def counted(catalog: Catalog) -> float:
    with catalog.reading() as session:
        return sum(session.scalars(select(Counter.value).where(Counter.name == REQUESTS)))
