"""The WAL of a recovery beside the data: all of it, or a list of what is brought while the server recovers."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from backstay.core.events import EventSink, Progress, Started
from backstay.core.pipeline import Workers
from backstay.errors import CorruptedBackup
from backstay.operations.clusters.plan import RecoveryPlan, WalFile
from backstay.operations.wal.coverage import require_segment
from backstay.repository.repository import Repository
from backstay.sources.postgres.owned_files import OwnedFiles
from backstay.sources.postgres.recovery import FETCH, PLANNED, STAGED, WISHES, fetch_script, stream_script

_AT_ONCE: Final = 4  # segments in memory


def stage_all(repository: Repository, plan: RecoveryPlan, owned: OwnedFiles, *, events: EventSink) -> None:
    """Write every segment, and the script that hands them out. Raises CorruptedBackup, OSError."""
    directory = _begin(repository, plan, owned)
    size = plan.base.segment_size
    events(Started(operation="stage the WAL", total_files=len(plan.segments), total_bytes=plan.wal_bytes))

    def write(file: WalFile) -> str:
        owned.write(directory / file.name, read_segment(repository, plan.base.system, file))
        return file.name

    with Workers(repository.environment.threads, "stage") as workers:
        staged = workers.ordered(write, plan.segments, weigh=lambda _: 1, limit=_AT_ONCE)
        for done, name in enumerate(staged, 1):
            events(Progress(files=done, bytes=done * size, current=name))
    if plan.segments:
        owned.write(directory / FETCH, fetch_script(plan.segments[-1].name).encode())


def bring_later(repository: Repository, plan: RecoveryPlan, owned: OwnedFiles, *, events: EventSink) -> None:
    """Write what is needed to bring segments one by one: their names, and the script that waits for them."""
    del events  # nothing here takes time
    directory = _begin(repository, plan, owned)
    owned.make(directory / WISHES)
    names = "".join(f"{file.name}\n" for file in plan.segments)
    owned.write(directory / PLANNED, names.encode())
    if plan.segments:
        owned.write(directory / FETCH, stream_script(plan.segments[-1].name).encode())


def read_segment(repository: Repository, system: int, file: WalFile) -> bytes:
    """All bytes of a segment; of one that was not complete what is stored, and zeros.

    Raises CorruptedBackup, ObjectNotFound, VersionUnsupported.
    """
    data = repository.wal.read(system, file.name, file.stored)
    size = require_segment(data, file.name)
    if len(data) > size:
        raise CorruptedBackup(f"WAL segment {file.name} has {len(data)} bytes")
    return data.ljust(size, b"\0")


def _begin(repository: Repository, plan: RecoveryPlan, owned: OwnedFiles) -> Path:
    directory = owned.data / STAGED
    owned.make(directory)
    for file in plan.histories:
        owned.write(directory / file.name, repository.wal.read(plan.base.system, file.name, file.stored))
    return directory
