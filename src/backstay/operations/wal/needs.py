"""Which stored objects of WAL make base backups consistent: the least that belongs to them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from backstay.operations.wal.bases import Base, base_of, is_base
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.wal.store import StoredFile, object_names


def needed_wal(repository: Repository, snapshots: Iterable[Manifest]) -> set[str]:
    """The objects of those that are base backups: their segments, and the histories of their cluster.

    Raises CorruptedBackup.
    """
    bases = sorted(map(base_of, filter(is_base, snapshots)), key=lambda base: base.system)
    return {
        name
        for system, own in groupby(bases, key=lambda base: base.system)
        for name in _needed(system, list(own), repository.wal.files(system))
    }


def _needed(system: int, bases: list[Base], files: dict[str, StoredFile]) -> set[str]:
    wanted = {file for base in bases for file in base.segments()}
    return {
        name
        for file, stored in files.items()
        if file in wanted or file.endswith(".history")
        for name in object_names(system, file, stored)
    }
