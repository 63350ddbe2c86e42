"""The manager on asyncio: what is awaited is done, and what is cancelled ends."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from backstay.aio import BackupManager
from backstay.control.manager.manager import BackupManager as SyncManager
from backstay.core.events import Event
from backstay.errors import NotFound


def test_what_is_awaited_is_done(backups: SyncManager, documents: Path, tmp_path: Path) -> None:
    async def use() -> None:
        async with BackupManager.of(backups) as manager:
            manager.configure(retention_days=30)
            made = await manager.create_backup(documents, name="x")
            assert await manager.get("x") == made
            found = await asyncio.gather(*(manager.restore("x", tmp_path / f"out-{n}") for n in range(3)))
            assert {run.files for run in found} == {6}
            assert len(await manager.list_restores()) == 3
            await manager.verify_backup("x")
            await manager.delete("x")
            with pytest.raises(NotFound):
                await manager.get("x")

    asyncio.run(use())


def test_a_cancelled_task_leaves_nothing_running(backups: SyncManager, documents: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def sink(event: Event) -> None:
        begun.set()
        go_on.wait(60)

    async def use() -> None:
        manager = BackupManager.of(backups)
        task = asyncio.ensure_future(manager.create_backup(documents, events=sink))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(use())
    assert backups.list() == [], "it stopped at its next event"
    assert backups.create_backup(documents).files == 6


def test_errors_come_as_they_are(backups: SyncManager, documents: Path) -> None:
    async def use() -> None:
        with pytest.raises(NotFound):
            await BackupManager.of(backups).get("nothing")

    backups.create_backup(documents)
    asyncio.run(use())
