"""Errors of the service: its catalog, its jobs, and who may do what."""

from __future__ import annotations

from backstay.errors.base import BackstayError, InvalidRequest


class CatalogUnavailable(BackstayError):
    """The catalog's database does not answer."""

    exit_status = 15
    transient = True
    default_hint = "see that the database runs and that its disk has room; no backup depends on it"


class CatalogOutdated(BackstayError):
    """The catalog was written by another version of this program."""

    default_hint = "let the newest version of backstay open it once: it brings the tables up to date"


class AccessRefused(BackstayError):
    """Somebody may not do what they ask. `reason` is for logs and metrics, not for who asked."""

    exit_status = 16

    def __init__(self, title: str, *, cause: str = "", hint: str = "", reason: str = "") -> None:
        super().__init__(title, cause=cause, hint=hint)
        self.reason = reason


class Unauthorized(AccessRefused):
    """Nobody is known by the token or the password that came."""

    default_hint = "send `Authorization: Bearer TOKEN` with a token that is valid"


class Forbidden(AccessRefused):
    """This user or token has no right to do that."""

    default_hint = "ask an administrator for a role that may"


class IdentityProviderUnavailable(BackstayError):
    """The provider that says who people are does not answer as it should."""

    exit_status = 15
    transient = True
    default_hint = "see that the provider answers; tokens of the service itself go on working"


class RateLimited(BackstayError):
    """There were too many requests in a short time."""

    transient = True
    default_hint = "wait, and send fewer requests"

    def __init__(self, title: str, *, cause: str = "", hint: str = "", retry_after: int = 1) -> None:
        super().__init__(title, cause=cause, hint=hint)
        self.retry_after = retry_after


class PreconditionFailed(BackstayError):
    """What should be changed is no longer what the client has seen."""

    default_hint = "read it again, and send the change with its new ETag"


class JobConflict(BackstayError):
    """The job is in a state in which this cannot be done."""

    exit_status = 11
    default_hint = "look at the job: it may be finished already"


class JobLost(BackstayError):
    """A job was begun again and again and never came to its end."""

    default_hint = "see its log and the log of the worker, mend the cause and start it again"


class ServerUnreachable(BackstayError):
    """The server does not answer, or what answers is no server of Backstay."""

    exit_status = 15
    transient = True
    default_hint = "check the address and the network, and that `backstay serve` runs there with TLS"


class NotificationFailed(BackstayError):
    """A message was not taken by its target."""

    transient = True
    default_hint = "see that the address of the target is right and its service answers, then send a test"


class ServerExtraMissing(InvalidRequest):
    """A part of this program that serves is not installed."""

    default_hint = "install it: `pip install 'backstay[server]'`"
