"""What a policy file says of the service itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

from pydantic import AfterValidator

from backstay.control.policies.values import Length, Model, WholePath, Wrong
from backstay.core.times import parse_length

_LEAST: Final = timedelta(days=1)


def _a_day(text: str) -> str:
    """A length that leaves time to look at what failed. Raises Wrong."""
    if parse_length(text) < _LEAST:
        raise Wrong(f"jobs are kept for a day at least, not {text}")
    return text


class ServiceSettings(Model):
    """How long jobs that ended are kept, and the directory of the recovery plans that the interface may carry out."""

    keep_jobs: Annotated[Length, AfterValidator(_a_day)] = "90d"
    recovery_plans: WholePath | None = None

    @property
    def jobs_kept(self) -> timedelta:
        """How long jobs that ended are kept."""
        return parse_length(self.keep_jobs)
