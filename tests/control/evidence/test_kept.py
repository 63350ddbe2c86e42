"""Evidence in the catalog: kept with what is told of, and the backup's row says what it found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backstay.catalog.database import Catalog
from backstay.catalog.models import Backup
from backstay.catalog.models import Evidence as Row
from backstay.control.evidence.kept import evidence_of, store
from backstay.control.evidence.seal import seal
from backstay.errors import CorruptedBackup
from backstay.trust.signing import Signer
from tests.control.evidence.test_evidence import minimal

NOW = datetime(2026, 11, 29, tzinfo=UTC)
ID = "01m8jxsyjrnk9gf6s19s8yvh7d"


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    found = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    found.migrate()
    yield found
    found.close()


def test_it_is_kept_and_told_in_the_row_of_its_backup(catalog: Catalog) -> None:
    report = minimal("x")
    report["backups"] = [report["backups"][0] | {"id": ID}]
    evidence = seal(report, Signer(bytes(32)))
    with catalog.session() as session:
        session.add(
            Backup(id=ID, repository="00", source="s", type="full", host="h", time=NOW, recorded_at=NOW, policy="p")
        )
        (kept,) = store(session, evidence, now=NOW, random=os.urandom, job_id=None)
    with catalog.reading() as session:
        row = session.get_one(Row, kept)
        backup = session.get_one(Backup, ID)
        assert (row.backup_id, row.kind, row.ok, row.digest) == (ID, "rehearsal", False, evidence.sha256)
        assert (backup.verified_ok, backup.rehearsed_ok, backup.rehearsed_at) == (False, False, NOW)
        assert evidence_of(row) == evidence
        session.expunge(row)
        row.report = row.report | {"sha256": "00" * 32}
        with pytest.raises(CorruptedBackup):
            evidence_of(row)
