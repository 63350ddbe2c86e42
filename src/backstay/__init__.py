"""Backstay: backups that prove they can be restored.

from backstay import Repository, open_backend, Secret

with Repository.open(open_backend("/backups"), Secret.passphrase("…")) as repository:
    for snapshot in repository.snapshots.live():
        print(snapshot.id, snapshot.time, snapshot.host)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Where each public name lives; they are loaded when they are asked for, so that `backstay --help` need not.
_HOMES = {
    "BackstayError": "backstay.errors",
    "BackupOptions": "backstay.operations.backup.run",
    "BackupResult": "backstay.operations.backup.run",
    "FilesystemSource": "backstay.sources.filesystem",
    "Filters": "backstay.sources.filters",
    "Manifest": "backstay.repository.snapshots",
    "QuorumPolicy": "backstay.trust.quorum",
    "Repository": "backstay.repository.repository",
    "RestoreOptions": "backstay.operations.restore.run",
    "RestoreResult": "backstay.operations.restore.run",
    "Secret": "backstay.trust.secrets",
    "StorageBackend": "backstay.storage.backend",
    "Validator": "backstay.trust.validators",
    "VerifyOptions": "backstay.operations.verify.run",
    "VerifyReport": "backstay.operations.verify.run",
    "open_backend": "backstay.storage.registry",
    "run_backup": "backstay.operations.backup.run",
    "run_restore": "backstay.operations.restore.run",
    "run_verify": "backstay.operations.verify.run",
}

__all__ = [
    "BackstayError",
    "BackupOptions",
    "BackupResult",
    "FilesystemSource",
    "Filters",
    "Manifest",
    "QuorumPolicy",
    "Repository",
    "RestoreOptions",
    "RestoreResult",
    "Secret",
    "StorageBackend",
    "Validator",
    "VerifyOptions",
    "VerifyReport",
    "open_backend",
    "run_backup",
    "run_restore",
    "run_verify",
]

if TYPE_CHECKING:
    from backstay.errors import BackstayError
    from backstay.operations.backup.run import BackupOptions, BackupResult, run_backup
    from backstay.operations.restore.run import RestoreOptions, RestoreResult, run_restore
    from backstay.operations.verify.run import VerifyOptions, VerifyReport, run_verify
    from backstay.repository.repository import Repository
    from backstay.repository.snapshots import Manifest
    from backstay.sources.filesystem import FilesystemSource
    from backstay.sources.filters import Filters
    from backstay.storage.backend import StorageBackend
    from backstay.storage.registry import open_backend
    from backstay.trust.quorum import QuorumPolicy
    from backstay.trust.secrets import Secret
    from backstay.trust.validators import Validator


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
