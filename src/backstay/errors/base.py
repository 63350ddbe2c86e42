"""What every error is, and those of any part."""

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


class Interrupted(BackstayError):
    """The user asked to stop; the repository is good and the next run continues."""

    exit_status = 130
    default_hint = "run the same command again to continue"


class InternalError(BackstayError):
    """The program met something that it was not made for."""

    default_hint = "run the command again with -v, and report what it shows"
