"""Errors of recovery plans."""

from __future__ import annotations

from backstay.errors.base import RestoreFailed
from backstay.errors.policies import PolicyInvalid


class PlanInvalid(PolicyInvalid):
    """A recovery plan cannot be read, or says what cannot be; `mistakes` are all that were found, by their lines."""

    default_hint = "docs/recovery.md has every key"


class StepFailed(RestoreFailed):
    """A step of a recovery plan did not come to a good end.

    `quoted`, at the end of the cause, is what a program printed or a database answered.
    """

    default_hint = "mend the cause and run the same plan again: it goes on with this step"

    def __init__(self, title: str, *, cause: str = "", hint: str = "", quoted: str = "") -> None:
        super().__init__(title, cause=f"{cause}: {quoted}" if quoted else cause, hint=hint)
        self.quoted = quoted

    def without_quoted(self, hint: str) -> StepFailed:
        """The same failure for those who may not read everything."""
        return type(self)(self.title, cause=self.cause.removesuffix(f": {self.quoted}"), hint=hint)


class StepTimeout(StepFailed):
    """A step of a recovery plan took longer than it may."""

    default_hint = "give it a longer `timeout`, or see what it waits for; the same plan goes on with this step"
