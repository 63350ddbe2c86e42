"""Every exception that Backstay raises, one tree.

BackstayError
├── InvalidRequest            exit 2   the request itself makes no sense
│   ├── BadWalName            exit 2   PostgreSQL gives no such name to a file of its log
│   ├── InvalidQuorum         exit 2   a quorum policy cannot work
│   ├── KeyProviderUnsupported exit 2  a policy file wants keys kept where this version cannot
│   ├── NaiveTimestamp        exit 2   a recovery target is a time without a zone
│   ├── PolicyInvalid         exit 2   a policy file has mistakes; it tells all of them
│   │   └── PlanInvalid       exit 2   so has a recovery plan
│   ├── ServerExtraMissing    exit 2   a part of this program that serves is not installed
│   ├── TargetAmbiguousTimeline exit 2 a recovery target lies on two timelines, and none was named
│   └── UnknownValidator      exit 2   a key attests that the quorum policy does not know
├── NotFound                  exit 1   no such snapshot, path, key slot
│   ├── ObjectNotFound                 the store proved that an object does not exist
│   └── NoRepository          exit 10
├── ObjectExists              exit 1   a write-once name is taken
├── RepositoryExists          exit 1   there is a repository already
├── BackupFailed              exit 1   a backup stopped without a snapshot
│   └── HookFailed                     a program that a policy runs before or after its backups failed
├── RestoreFailed             exit 1   a restore could not write what it promised
│   └── StepFailed            exit 1   a step of a recovery plan did not come to a good end
│       └── StepTimeout       exit 1   it took longer than it may
├── RestoreConflict           exit 17  the target holds something else
├── UnsupportedFormat         exit 1   a newer or foreign repository
├── WrongKey                  exit 12  no key slot opens with what was given
├── CorruptedBackup           exit 13  stored bytes are not what was written
│   └── BadAttestation                 what should be a validator's attestation is none
├── MachineFault              exit 1   memory or processor of this machine make errors
├── SnapshotFenced            exit 11  a collector cancelled this writer
├── CollectionBusy            exit 11  another collector holds the turn
├── InsufficientSpace         exit 14
│   └── QuotaExceeded         exit 14
├── StorageUnavailable        exit 15  the store does not answer as it should (transient by nature)
│   ├── StorageMissing        exit 15  the directory or bucket itself is not there
│   ├── StorageRefused        exit 15  the store knows us not, or forbids it
│   ├── StorageUnfit          exit 15  the store lacks what a repository relies on
│   ├── ObjectUnreadable      exit 15  the object is there, and its disk does not give its bytes
│   ├── TierNotAttached       exit 15  the store of the cold tier is away: a disk that has to be attached
│   └── ObjectFrozen          exit 18  an archive has the object, and must be asked to thaw it first
│       └── ThawPending       exit 18  the archive was asked, and is at it
├── HoldViolation             exit 16  a hold or a policy forbids it
│   └── ValueInUse            exit 16  a snapshot refers to the value
├── QuorumNotReached          exit 16  too few validators attested a snapshot yet
├── ValueBusy                 exit 11  a writer at work may be about to refer to the value (transient by nature)
├── CatalogUnavailable        exit 15  the catalog's database does not answer (transient by nature)
├── CatalogOutdated           exit 1   the catalog is of another version
├── AccessRefused             exit 16  somebody may not do what they ask
│   ├── Unauthorized          exit 16  nobody is known by this token or password
│   └── Forbidden             exit 16  this user has no right to do that
├── IdentityProviderUnavailable exit 15 the provider that says who people are does not answer (transient by nature)
├── RateLimited               exit 1   too many requests (transient by nature)
├── PreconditionFailed        exit 1   what should be changed was changed in between
├── JobConflict               exit 11  a job is in a state in which this cannot be done
├── JobLost                   exit 1   a job was begun again and again and never ended
├── ServerUnreachable         exit 15  the server does not answer, or is none of Backstay (transient by nature)
├── NotificationFailed        exit 1   a message was not taken by its target
├── SourceUnreachable         exit 15  a database does not answer (transient by nature)
├── SourceRefused             exit 1   a database answered, and said no
│   ├── ReplicationDenied              the role or pg_hba.conf does not allow replication
│   ├── SlotInUse                      another receiver of this name runs
│   └── WalLevelTooLow                 the server logs too little, or has no place for a receiver
├── CorruptedSource           exit 1   a database that should be backed up is damaged itself, or no database
│   └── ChecksumFailure                pages of a cluster do not have the checksum that they say; what came is marked
├── IdentityMismatch          exit 1   another database cluster than before answers at this address
├── VersionUnsupported        exit 1   a server or client program of a version that this cannot be done with
│   └── ClientTooOld                   the client programs that are here are older than the server, or none are
├── DumpFailed                exit 1   pg_dump, pg_restore or their like ended with an error
├── SlotLost                  exit 1   the server gave up WAL that was not received yet
├── WalGap                    exit 1   a part of a database's log between two that are stored is missing
│   └── SnapshotIncomplete             a base backup lacks WAL without which it is not consistent
├── WalConflict               exit 1   a file of a database's log of this name and other bytes is stored already
├── WalWrongSize              exit 1   a WAL segment is shorter or longer than those of its cluster
├── ServiceRunning            exit 11  another process answers at the same socket
├── TargetNotCovered          exit 1   stored base backups and WAL do not reach the recovery target
│   └── TargetBeforeSnapshot           it lies before the first of them
├── RecoveryFailed            exit 1   a server that was started from a backup did not recover
│   └── RecoveryTimeout                it had not by the time that it was given
├── GraphError                exit 1   a graph of computed values is not what it must be
│   ├── InvalidNode                    a node or a graph has a field that cannot be
│   ├── InvalidDocument                a file that should describe a graph does not
│   ├── DuplicateNode                  two nodes have one id
│   ├── UnknownNode                    the graph has no node of this id
│   ├── MissingDependency              nodes depend on nodes that are not there
│   ├── CycleFound                     nodes depend on themselves
│   ├── OutputConflict                 the outputs of two nodes would be one file
│   ├── OutputMissing                  the value that a node made is not stored
│   ├── OutputMismatch                 a value is not the one that a node made
│   ├── InputLost                      what a node is made from cannot be read
│   ├── RecomputeFailed                a node could not be made again
│   │   ├── RecomputeTimeout           making it took longer than it may
│   │   └── WorkerLost                 the process that should make it ended
│   └── OutputsBusy           exit 11  another restore writes into the same directory
├── Interrupted               exit 130 the user pressed Ctrl-C
└── InternalError             exit 1   a mistake in the program itself
"""

from __future__ import annotations

from backstay.errors.base import (
    BackstayError,
    BackupFailed,
    InternalError,
    Interrupted,
    InvalidRequest,
    NotFound,
    RestoreConflict,
    RestoreFailed,
)
from backstay.errors.databases import (
    BadWalName,
    ChecksumFailure,
    ClientTooOld,
    CorruptedSource,
    DumpFailed,
    IdentityMismatch,
    NaiveTimestamp,
    RecoveryFailed,
    RecoveryTimeout,
    ReplicationDenied,
    ServiceRunning,
    SlotInUse,
    SlotLost,
    SnapshotIncomplete,
    SourceRefused,
    SourceUnreachable,
    TargetAmbiguousTimeline,
    TargetBeforeSnapshot,
    TargetNotCovered,
    VersionUnsupported,
    WalConflict,
    WalGap,
    WalLevelTooLow,
    WalWrongSize,
)
from backstay.errors.graphs import (
    CycleFound,
    DuplicateNode,
    GraphError,
    InputLost,
    InvalidDocument,
    InvalidNode,
    MissingDependency,
    OutputConflict,
    OutputMismatch,
    OutputMissing,
    OutputsBusy,
    RecomputeFailed,
    RecomputeTimeout,
    UnknownNode,
    WorkerLost,
)
from backstay.errors.policies import (
    HookFailed,
    KeyProviderUnsupported,
    Mistake,
    PolicyInvalid,
)
from backstay.errors.recovering import PlanInvalid, StepFailed, StepTimeout
from backstay.errors.repositories import (
    CollectionBusy,
    CorruptedBackup,
    HoldViolation,
    MachineFault,
    NoRepository,
    RepositoryBusy,
    RepositoryExists,
    SnapshotFenced,
    UnsupportedFormat,
    ValueBusy,
    ValueInUse,
    WrongKey,
)
from backstay.errors.services import (
    AccessRefused,
    CatalogOutdated,
    CatalogUnavailable,
    Forbidden,
    IdentityProviderUnavailable,
    JobConflict,
    JobLost,
    NotificationFailed,
    PreconditionFailed,
    RateLimited,
    ServerExtraMissing,
    ServerUnreachable,
    Unauthorized,
)
from backstay.errors.stores import (
    InsufficientSpace,
    ObjectExists,
    ObjectFrozen,
    ObjectNotFound,
    ObjectUnreadable,
    QuotaExceeded,
    StorageMissing,
    StorageRefused,
    StorageUnavailable,
    StorageUnfit,
    ThawPending,
    TierNotAttached,
)
from backstay.errors.validators import (
    BadAttestation,
    InvalidQuorum,
    QuorumNotReached,
    UnknownValidator,
)

__all__ = [
    "AccessRefused",
    "BackstayError",
    "BackupFailed",
    "BadAttestation",
    "BadWalName",
    "CatalogOutdated",
    "CatalogUnavailable",
    "ChecksumFailure",
    "ClientTooOld",
    "CollectionBusy",
    "CorruptedBackup",
    "CorruptedSource",
    "CycleFound",
    "DumpFailed",
    "DuplicateNode",
    "Forbidden",
    "GraphError",
    "HoldViolation",
    "HookFailed",
    "IdentityMismatch",
    "IdentityProviderUnavailable",
    "InputLost",
    "InsufficientSpace",
    "InternalError",
    "Interrupted",
    "InvalidDocument",
    "InvalidNode",
    "InvalidQuorum",
    "InvalidRequest",
    "JobConflict",
    "JobLost",
    "KeyProviderUnsupported",
    "MachineFault",
    "MissingDependency",
    "Mistake",
    "NaiveTimestamp",
    "NoRepository",
    "NotFound",
    "NotificationFailed",
    "ObjectExists",
    "ObjectFrozen",
    "ObjectNotFound",
    "ObjectUnreadable",
    "OutputConflict",
    "OutputMismatch",
    "OutputMissing",
    "OutputsBusy",
    "PlanInvalid",
    "PolicyInvalid",
    "PreconditionFailed",
    "QuorumNotReached",
    "QuotaExceeded",
    "RateLimited",
    "RecomputeFailed",
    "RecomputeTimeout",
    "RecoveryFailed",
    "RecoveryTimeout",
    "ReplicationDenied",
    "RepositoryBusy",
    "RepositoryExists",
    "RestoreConflict",
    "RestoreFailed",
    "ServerExtraMissing",
    "ServerUnreachable",
    "ServiceRunning",
    "SlotInUse",
    "SlotLost",
    "SnapshotFenced",
    "SnapshotIncomplete",
    "SourceRefused",
    "SourceUnreachable",
    "StepFailed",
    "StepTimeout",
    "StorageMissing",
    "StorageRefused",
    "StorageUnavailable",
    "StorageUnfit",
    "TargetAmbiguousTimeline",
    "TargetBeforeSnapshot",
    "TargetNotCovered",
    "ThawPending",
    "TierNotAttached",
    "Unauthorized",
    "UnknownNode",
    "UnknownValidator",
    "UnsupportedFormat",
    "ValueBusy",
    "ValueInUse",
    "VersionUnsupported",
    "WalConflict",
    "WalGap",
    "WalLevelTooLow",
    "WalWrongSize",
    "WorkerLost",
    "WrongKey",
]
