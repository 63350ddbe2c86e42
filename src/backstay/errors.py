"""Every exception that Backstay raises, one tree.

BackstayError
├── InvalidRequest            exit 2   the request itself makes no sense
├── NotFound                  exit 1   no such snapshot, path, key slot
│   ├── ObjectNotFound                 the store proved that an object does not exist
│   └── NoRepository          exit 10
├── ObjectExists              exit 1   a write-once name is taken
├── RepositoryExists          exit 1   there is a repository already
├── BackupFailed              exit 1   a backup stopped without a snapshot
├── RestoreFailed             exit 1   a restore could not write what it promised
├── RestoreConflict           exit 17  the target holds something else
├── UnsupportedFormat         exit 1   a newer or foreign repository
├── WrongKey                  exit 12  no key slot opens with what was given
├── CorruptedBackup           exit 13  stored bytes are not what was written
├── SnapshotFenced            exit 11  a collector cancelled this writer
├── CollectionBusy            exit 11  another collector holds the turn
├── InsufficientSpace         exit 14
│   └── QuotaExceeded         exit 14
├── StorageUnavailable        exit 15  the store does not answer as it should (transient by nature)
│   ├── StorageMissing        exit 15  the directory or bucket itself is not there
│   ├── StorageRefused        exit 15  the store knows us not, or forbids it
│   ├── StorageUnfit          exit 15  the store lacks what a repository relies on
│   ├── TierNotAttached       exit 15  the store of the cold tier is away: a disk that has to be attached
│   └── ObjectFrozen          exit 18  an archive has the object, and must be asked to thaw it first
│       └── ThawPending       exit 18  the archive was asked, and is at it
├── HoldViolation             exit 16  a hold or a policy forbids it
├── Interrupted               exit 130 the user pressed Ctrl-C
└── InternalError             exit 1   a mistake in the program itself
"""

from __future__ import annotations

from typing import ClassVar


class BackstayError(Exception):
    """A failure told in three lines: what failed, why, and what to do next.

    `code` is stable and meant for programs; `transient` says whether the same call may succeed later.
    """

    code: ClassVar[str] = "BackstayError"
    exit_status: ClassVar[int] = 1
    transient: ClassVar[bool] = False
    default_hint: ClassVar[str] = "run the command again with -v for details"

    def __init__(self, title: str, *, cause: str = "", hint: str = "") -> None:
        super().__init__(title)
        self.title = title
        self.cause = cause
        self.hint = hint or self.default_hint

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.code = cls.__name__

    def __str__(self) -> str:
        return f"{self.title}: {self.cause}" if self.cause else self.title


class InvalidRequest(BackstayError):
    """The request contradicts itself or names something that cannot be."""

    exit_status = 2
    default_hint = "see `backstay COMMAND --help`"


class NotFound(BackstayError):
    """What was asked for does not exist."""

    default_hint = "`backstay list` shows the snapshots there are"


class ObjectNotFound(NotFound):
    """The store proved that it holds no object of this name; never raised on doubt."""

    default_hint = "run `backstay verify` to see what else is missing"

    def __init__(self, name: str) -> None:
        super().__init__(f"object {name} does not exist", cause="it was deleted, or never stored")
        self.name = name


class NoRepository(NotFound):
    """There is no repository at this address."""

    exit_status = 10
    default_hint = "check the address, or create a repository with `backstay init`"


class ObjectExists(BackstayError):
    """A write-once object of this name exists already."""

    default_hint = "nothing was overwritten; choose another name"

    def __init__(self, name: str) -> None:
        super().__init__(f"object {name} exists already", cause="objects are written once and never replaced")
        self.name = name


class RepositoryExists(BackstayError):
    """A repository lies there already; it was left alone."""

    default_hint = "use it, or name another place"


class BackupFailed(BackstayError):
    """A backup ended without a snapshot; what it stored is reused by the next run."""

    default_hint = "mend the cause and run the same backup again: it continues where this one stopped"


class RestoreFailed(BackstayError):
    """A restore could not write everything it promised."""

    default_hint = "mend the cause and run the same restore again: files that are already right are left alone"


class RestoreConflict(BackstayError):
    """The target holds items that differ from the snapshot; nothing was written."""

    exit_status = 17
    default_hint = "choose --conflict skip, overwrite, newer or rename, or restore to another directory"

    def __init__(self, title: str, *, cause: str = "", hint: str = "", paths: tuple[str, ...] = ()) -> None:
        super().__init__(title, cause=cause, hint=hint)
        self.paths = paths


class UnsupportedFormat(BackstayError):
    """The repository needs a newer program, or was never one of ours."""

    default_hint = "use a version of backstay that knows this format"


class WrongKey(BackstayError):
    """No key slot of the repository opens with the secret that was given."""

    exit_status = 12
    default_hint = "check BACKSTAY_PASSWORD, the password file or the key file; a recovery key opens it too"


class CorruptedBackup(BackstayError):
    """Stored bytes are not those that were written."""

    exit_status = 13
    default_hint = "run `backstay verify --read-data` for the whole extent; restore the object from another copy"


class SnapshotFenced(BackstayError):
    """A collector took this writer for dead and cancelled it; its data is not referenced."""

    exit_status = 11
    default_hint = "run the backup again: what was stored and not yet collected is reused"


class CollectionBusy(BackstayError):
    """Another collector announced its list first."""

    exit_status = 11
    default_hint = "run `backstay gc` again when the other one has finished"


class RepositoryBusy(BackstayError):
    """Another program writes, and the store cannot decide between several writers."""

    exit_status = 11
    default_hint = "try again when the other one has finished; a program that is gone is done without after an hour"


class InsufficientSpace(BackstayError):
    """The store or a local disk is full."""

    exit_status = 14
    default_hint = "free space on that file system, or run `backstay prune` and `backstay gc`"


class QuotaExceeded(InsufficientSpace):
    """The repository's own size limit is reached."""

    default_hint = "raise max_size, or prune snapshots and run `backstay gc`"


class StorageUnavailable(BackstayError):
    """The store did not answer, or not as a store should."""

    exit_status = 15
    transient = True
    default_hint = "check that the store is mounted or reachable and that you may write to it, then try again"

    def __init__(self, title: str, *, cause: str = "", hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(title, cause=cause, hint=hint)
        self.retry_after = retry_after  # seconds that the store asked to be left alone for, if it did


class StorageMissing(StorageUnavailable):
    """The place where objects are kept is not there: never created, moved away, or not mounted."""

    transient = False
    default_hint = "check the address; if it is on a disk or a share, mount it"


class StorageRefused(StorageUnavailable):
    """The store answered, and said no: credentials, permissions, or a rule of its own."""

    transient = False
    default_hint = "check the credentials and what they allow"


class StorageUnfit(StorageUnavailable):
    """The store works, but cannot do what a repository relies on."""

    transient = False
    default_hint = "use another store; `backstay check-storage` shows what this one can do"


class TierNotAttached(StorageUnavailable):
    """The store that holds the cold packs is not there; it says nothing about what lies in it."""

    transient = False
    default_hint = "attach the disk of the cold tier, then repeat the command; `backstay tier show` tells its address"


class ObjectFrozen(StorageUnavailable):
    """The object lies in an archive, which gives it only some time after it was asked to."""

    exit_status = 18
    transient = False
    default_hint = "`restore`, `cat`, `copy` and `export` ask the archive for all that they need, and wait"


class ThawPending(ObjectFrozen):
    """The archive was asked for objects, and has not brought them up yet."""

    default_hint = "repeat the command later: nothing is asked for twice"


class HoldViolation(BackstayError):
    """A hold or a policy protects what should be removed."""

    exit_status = 16
    default_hint = "clear the hold first, if you may"


class Interrupted(BackstayError):
    """The user asked to stop; the repository is good and the next run continues."""

    exit_status = 130
    default_hint = "run the same command again to continue"


class InternalError(BackstayError):
    """The program met something that it was not made for."""

    default_hint = "run the command again with -v, and report what it shows"
