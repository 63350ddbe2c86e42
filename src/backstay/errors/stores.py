"""Errors of stores and of what lies in them."""

from __future__ import annotations

from backstay.errors.base import BackstayError, NotFound


class ObjectNotFound(NotFound):
    """The store proved that it holds no object of this name; never raised on doubt."""

    default_hint = "run `backstay verify` to see what else is missing"

    def __init__(self, name: str) -> None:
        super().__init__(f"object {name} does not exist", cause="it was deleted, or never stored")
        self.name = name


class ObjectExists(BackstayError):
    """A write-once object of this name exists already."""

    default_hint = "nothing was overwritten; choose another name"

    def __init__(self, name: str) -> None:
        super().__init__(f"object {name} exists already", cause="objects are written once and never replaced")
        self.name = name


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


class ObjectUnreadable(StorageUnavailable):
    """The object is there, and its disk does not give its bytes; others may well be readable."""

    transient = False
    default_hint = "look at the system log and at smartctl, and copy what is left to another disk"


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
