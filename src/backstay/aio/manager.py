"""BackupManager for programs on asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial, wraps
from inspect import signature
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from backstay.control.manager.manager import BackupManager as SyncManager
from backstay.control.manager.sources import BackupSource
from backstay.core.clock import Clock
from backstay.core.events import Event, EventSink, ignore
from backstay.errors import Interrupted
from backstay.storage.backend import StorageBackend

if TYPE_CHECKING:
    from backstay.catalog.database import Catalog
    from backstay.control.scheduling.schedules import Schedules

P = ParamSpec("P")
ResultT = TypeVar("ResultT")


def _awaited(
    call: Callable[Concatenate[SyncManager, P], ResultT],
) -> Callable[Concatenate[BackupManager, P], Awaitable[ResultT]]:
    """The call on a thread. If its task is cancelled, it is asked to stop at its next event, and waited for."""
    takes = signature(call).parameters

    @wraps(call)
    async def awaited(self: BackupManager, /, *args: P.args, **kwargs: P.kwargs) -> ResultT:
        stopped = threading.Event()
        if "events" in takes:
            kwargs["events"] = _stoppable(kwargs.get("events", ignore), stopped)
        if "checkpoint" in takes and "checkpoint" not in kwargs:
            kwargs["checkpoint"] = partial(_stop_if, stopped)
        work = asyncio.ensure_future(asyncio.to_thread(call, self.sync, *args, **kwargs))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            stopped.set()
            await asyncio.wait([work])
            if not work.cancelled():
                work.exception()  # it was told by the cancellation
            raise

    return awaited


def _stoppable(sink: Any, stopped: threading.Event) -> EventSink:  # noqa: ANN401 - what a caller gave
    def take(event: Event) -> None:
        sink(event)
        _stop_if(stopped)

    return take


def _stop_if(stopped: threading.Event) -> None:
    if stopped.is_set():
        raise Interrupted("stopped", cause="the task that waited for it was cancelled")


class BackupManager:
    """As `backstay.BackupManager`, to be awaited; its `events` sinks are called on the thread that works."""

    def __init__(
        self,
        storage_location: str | Path | StorageBackend | None = None,
        *,
        password: str | None = None,
        database: str | Path | Catalog | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.sync = SyncManager(
            storage_location, password=password, database=database, environ=environ, clock=clock, warn=warn
        )

    @classmethod
    def of(cls, manager: SyncManager) -> Self:
        """The asynchronous face of a manager."""
        made = cls.__new__(cls)
        made.sync = manager
        return made

    @classmethod
    def open(
        cls,
        policy_file: str | Path,
        *,
        password: str | None = None,
        database: str | Path | Catalog | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> Self:
        """The manager of a policy file. Raises PolicyInvalid with all its mistakes."""
        return cls.of(
            SyncManager.open(policy_file, password=password, database=database, environ=environ, clock=clock, warn=warn)
        )

    def configure(
        self,
        *,
        storage_location: str | Path | StorageBackend | None = None,
        password: str | None = None,
        encryption: bool = True,
        compression: bool | str | None = None,
        compression_level: int | None = None,
        retention_days: int | None = None,
        max_size: int | str | None = None,
        sources: BackupSource | str | Path | Sequence[BackupSource | str | Path] | None = None,
    ) -> Self:
        """As of the other one, which needs no waiting."""
        self.sync.configure(
            storage_location=storage_location,
            password=password,
            encryption=encryption,
            compression=compression,
            compression_level=compression_level,
            retention_days=retention_days,
            max_size=max_size,
            sources=sources,
        )
        return self

    execute = _awaited(SyncManager.execute)
    create_backup = _awaited(SyncManager.create_backup)
    list = _awaited(SyncManager.list)
    get = _awaited(SyncManager.get)
    find = _awaited(SyncManager.find)
    delete = _awaited(SyncManager.delete)
    hold = _awaited(SyncManager.hold)
    release = _awaited(SyncManager.release)
    prune = _awaited(SyncManager.prune)
    gc = _awaited(SyncManager.gc)
    copy = _awaited(SyncManager.copy)
    restore = _awaited(SyncManager.restore)
    plan_restore = _awaited(SyncManager.plan_restore)
    verify_restore = _awaited(SyncManager.verify_restore)
    list_restores = _awaited(SyncManager.list_restores)
    verify = _awaited(SyncManager.verify)
    verify_at = _awaited(SyncManager.verify_at)
    verify_backup = _awaited(SyncManager.verify_backup)
    metrics = _awaited(SyncManager.metrics)
    notify = _awaited(SyncManager.notify)

    @property
    def schedules(self) -> Schedules:
        """Schedules, whose calls are short transactions; call them by `asyncio.to_thread`."""
        return self.sync.schedules

    async def close(self) -> None:
        """Let go of the catalog."""
        await asyncio.to_thread(self.sync.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
