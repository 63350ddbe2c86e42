"""A small program to be killed: back up two trees, drop the first snapshot, collect; each step is acknowledged."""

from __future__ import annotations

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

from backstay.core.clock import SystemClock
from backstay.operations.backup import checkpoints
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.repository.collection.collector import Collector
from backstay.repository.repository import Environment, Repository
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.storage.local import LocalStorage
from backstay.trust.secrets import Secret

SECRET = Secret("keyfile", bytes(range(32)))


def acknowledge(file: Path, line: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode() + b"\n")
    os.close(descriptor)


def open_repository(place: Path) -> Repository:
    return Repository.open(LocalStorage(place / "repository"), SECRET, environment=Environment(threads=2))


def back_up(repository: Repository, tree: Path) -> str:
    source = FilesystemSource([os.fsencode(tree)], filters=Filters(()), clock=SystemClock())
    result = run_backup(repository, source, BackupOptions(host="host", name="tree"))
    assert result.snapshot is not None
    return result.snapshot


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts us in the background ignores it
    place = Path(sys.argv[1])
    acknowledged = place / "acknowledged"
    checkpoints.MOST_FILES = 5  # type: ignore[misc]
    with open_repository(place) as repository:
        snapshots = []
        for tree in ("one", "two"):
            snapshots.append(back_up(repository, place / tree))
            acknowledge(acknowledged, f"{tree} {snapshots[-1]}")
        acknowledge(acknowledged, f"dropping {snapshots[0]}")
        repository.snapshots.drop(snapshots[0], "by a test", repository.clock)
        acknowledge(acknowledged, f"dropped {snapshots[0]}")
        collector = Collector(repository, lease=timedelta(0))
        collector.execute(collector.plan())
        acknowledge(acknowledged, "collected -")


if __name__ == "__main__":
    main()
