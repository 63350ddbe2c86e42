"""Errors of repositories, their snapshots and values."""

from __future__ import annotations

from typing import Self

from backstay.errors.base import BackstayError, NotFound


class NoRepository(NotFound):
    """There is no repository at this address."""

    exit_status = 10
    default_hint = "check the address, or create a repository with `backstay init`"


class RepositoryExists(BackstayError):
    """A repository lies there already; it was left alone."""

    default_hint = "use it, or name another place"


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

    @classmethod
    def of_unreadable(cls, error: BackstayError) -> Self:
        """For those who go on with the rest: what a disk does not give is as good as damaged."""
        return cls(error.title, cause=error.cause, hint=error.hint)


class MachineFault(BackstayError):
    """Memory or processor of this machine make errors: what was encoded does not decode to the same."""

    default_hint = "test the memory of this machine before you back up with it; what is stored already is not affected"


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


class HoldViolation(BackstayError):
    """A hold or a policy protects what should be removed."""

    exit_status = 16
    default_hint = "clear the hold first, if you may"


class ValueInUse(HoldViolation):
    """A live snapshot of a graph refers to the value that should be removed."""

    default_hint = "delete the snapshots that refer to it first"


class ValueBusy(BackstayError):
    """A writer said that it is about to refer to values, and has not ended: none may be removed meanwhile."""

    exit_status = 11
    transient = True
    default_hint = "try again when the other one has finished; a program that is gone is done without after an hour"
