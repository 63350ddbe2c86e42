"""Backstay: backups that prove they can be restored.

from backstay import Repository, open_backend, Secret

with Repository.open(open_backend("/backups"), Secret.passphrase("…")) as repository:
    for snapshot in repository.snapshots.live():
        print(snapshot.id, snapshot.time, snapshot.host)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from backstay.core.version import VERSION

__version__ = VERSION

# Where each public name lives; they are loaded when they are asked for, so that `backstay --help` need not.
_HOMES = {
    "BackstayError": "backstay.errors",
    "BackupFailed": "backstay.errors",
    "BackupOptions": "backstay.operations.backup",
    "BackupResult": "backstay.operations.backup",
    "BadWalName": "backstay.errors",
    "ChecksumFailure": "backstay.errors",
    "ClientTooOld": "backstay.errors",
    "CollectionBusy": "backstay.errors",
    "ContentAddressableStorage": "backstay.repository.cas",
    "CorruptedBackup": "backstay.errors",
    "CorruptedSource": "backstay.errors",
    "DumpFailed": "backstay.errors",
    "FilesystemSource": "backstay.sources.filesystem",
    "Filters": "backstay.sources.filters",
    "HoldViolation": "backstay.errors",
    "IdentityMismatch": "backstay.errors",
    "InsufficientSpace": "backstay.errors",
    "InternalError": "backstay.errors",
    "Interrupted": "backstay.errors",
    "InvalidRequest": "backstay.errors",
    "Manifest": "backstay.repository.snapshots",
    "NaiveTimestamp": "backstay.errors",
    "NoRepository": "backstay.errors",
    "NotFound": "backstay.errors",
    "ObjectExists": "backstay.errors",
    "ObjectFrozen": "backstay.errors",
    "ObjectNotFound": "backstay.errors",
    "QuotaExceeded": "backstay.errors",
    "RecoveryFailed": "backstay.errors",
    "RecoveryTimeout": "backstay.errors",
    "ReplicationDenied": "backstay.errors",
    "Repository": "backstay.repository.repository",
    "RepositoryBusy": "backstay.errors",
    "RepositoryExists": "backstay.errors",
    "RestoreConflict": "backstay.errors",
    "RestoreFailed": "backstay.errors",
    "RestoreOptions": "backstay.operations.restore",
    "RestoreResult": "backstay.operations.restore",
    "Secret": "backstay.trust.secrets",
    "ServiceRunning": "backstay.errors",
    "SlotInUse": "backstay.errors",
    "SlotLost": "backstay.errors",
    "SnapshotFenced": "backstay.errors",
    "SourceRefused": "backstay.errors",
    "SourceUnreachable": "backstay.errors",
    "StorageBackend": "backstay.storage.backend",
    "StorageMissing": "backstay.errors",
    "StorageRefused": "backstay.errors",
    "StorageUnavailable": "backstay.errors",
    "StorageUnfit": "backstay.errors",
    "TargetBeforeSnapshot": "backstay.errors",
    "TargetNotCovered": "backstay.errors",
    "ThawPending": "backstay.errors",
    "TierNotAttached": "backstay.errors",
    "UnsupportedFormat": "backstay.errors",
    "ValueBusy": "backstay.errors",
    "ValueInUse": "backstay.errors",
    "VerifyOptions": "backstay.operations.verify",
    "VerifyReport": "backstay.operations.verify",
    "VersionUnsupported": "backstay.errors",
    "WalConflict": "backstay.errors",
    "WalGap": "backstay.errors",
    "WalLevelTooLow": "backstay.errors",
    "WalWrongSize": "backstay.errors",
    "WrongKey": "backstay.errors",
    "open_backend": "backstay.storage.registry",
    "run_backup": "backstay.operations.backup",
    "run_restore": "backstay.operations.restore",
    "run_verify": "backstay.operations.verify",
}

__all__ = [
    "BackstayError",
    "BackupFailed",
    "BackupOptions",
    "BackupResult",
    "BadWalName",
    "ChecksumFailure",
    "ClientTooOld",
    "CollectionBusy",
    "ContentAddressableStorage",
    "CorruptedBackup",
    "CorruptedSource",
    "DumpFailed",
    "FilesystemSource",
    "Filters",
    "HoldViolation",
    "IdentityMismatch",
    "InsufficientSpace",
    "InternalError",
    "Interrupted",
    "InvalidRequest",
    "Manifest",
    "NaiveTimestamp",
    "NoRepository",
    "NotFound",
    "ObjectExists",
    "ObjectFrozen",
    "ObjectNotFound",
    "QuotaExceeded",
    "RecoveryFailed",
    "RecoveryTimeout",
    "ReplicationDenied",
    "Repository",
    "RepositoryBusy",
    "RepositoryExists",
    "RestoreConflict",
    "RestoreFailed",
    "RestoreOptions",
    "RestoreResult",
    "Secret",
    "ServiceRunning",
    "SlotInUse",
    "SlotLost",
    "SnapshotFenced",
    "SourceRefused",
    "SourceUnreachable",
    "StorageBackend",
    "StorageMissing",
    "StorageRefused",
    "StorageUnavailable",
    "StorageUnfit",
    "TargetBeforeSnapshot",
    "TargetNotCovered",
    "ThawPending",
    "TierNotAttached",
    "UnsupportedFormat",
    "ValueBusy",
    "ValueInUse",
    "VerifyOptions",
    "VerifyReport",
    "VersionUnsupported",
    "WalConflict",
    "WalGap",
    "WalLevelTooLow",
    "WalWrongSize",
    "WrongKey",
    "open_backend",
    "run_backup",
    "run_restore",
    "run_verify",
]

if TYPE_CHECKING:
    from backstay.errors import (
        BackstayError,
        BackupFailed,
        BadWalName,
        ChecksumFailure,
        ClientTooOld,
        CollectionBusy,
        CorruptedBackup,
        CorruptedSource,
        DumpFailed,
        HoldViolation,
        IdentityMismatch,
        InsufficientSpace,
        InternalError,
        Interrupted,
        InvalidRequest,
        NaiveTimestamp,
        NoRepository,
        NotFound,
        ObjectExists,
        ObjectFrozen,
        ObjectNotFound,
        QuotaExceeded,
        RecoveryFailed,
        RecoveryTimeout,
        ReplicationDenied,
        RepositoryBusy,
        RepositoryExists,
        RestoreConflict,
        RestoreFailed,
        ServiceRunning,
        SlotInUse,
        SlotLost,
        SnapshotFenced,
        SourceRefused,
        SourceUnreachable,
        StorageMissing,
        StorageRefused,
        StorageUnavailable,
        StorageUnfit,
        TargetBeforeSnapshot,
        TargetNotCovered,
        ThawPending,
        TierNotAttached,
        UnsupportedFormat,
        ValueBusy,
        ValueInUse,
        VersionUnsupported,
        WalConflict,
        WalGap,
        WalLevelTooLow,
        WalWrongSize,
        WrongKey,
    )
    from backstay.operations.backup import (
        BackupOptions,
        BackupResult,
        run_backup,
    )
    from backstay.operations.restore import (
        RestoreOptions,
        RestoreResult,
        run_restore,
    )
    from backstay.operations.verify import (
        VerifyOptions,
        VerifyReport,
        run_verify,
    )
    from backstay.repository.cas import (
        ContentAddressableStorage,
    )
    from backstay.repository.repository import (
        Repository,
    )
    from backstay.repository.snapshots import (
        Manifest,
    )
    from backstay.sources.filesystem import (
        FilesystemSource,
    )
    from backstay.sources.filters import (
        Filters,
    )
    from backstay.storage.backend import (
        StorageBackend,
    )
    from backstay.storage.registry import (
        open_backend,
    )
    from backstay.trust.secrets import (
        Secret,
    )


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
