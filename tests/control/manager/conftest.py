"""A manager with a repository, a catalog and a clock of its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select

from backstay.catalog.models.jobs import Job
from backstay.control.manager.manager import BackupManager
from backstay.testing import FakeClock
from backstay.trust.secrets import Secret

PASSWORD = Secret.new_keyfile().printed()  # what is derived from a password of words takes time, each time
NOON = datetime(2025, 6, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    place = tmp_path / "documents"
    (place / "letters").mkdir(parents=True)
    for number in range(5):
        (place / f"letters/letter-{number}.txt").write_text(f"dear {number}\n" * (number + 1))
    (place / "notes.tmp").write_text("scratch")
    return place


@pytest.fixture
def backups(tmp_path: Path, environ: dict[str, str], clock: FakeClock) -> Iterator[BackupManager]:
    with BackupManager(tmp_path / "repository", password=PASSWORD, environ=environ, clock=clock) as made:
        yield made


def jobs(backups: BackupManager) -> list[Job]:
    with backups.records.catalog.reading() as session:
        return list(session.scalars(select(Job).order_by(Job.created_at, Job.id)))
