"""Recoveries by plans that the service keeps."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from backstay.api.models.base import Asked, Line


class AskedRecovery(Asked):
    """How to carry a plan out."""

    digest: Annotated[Line | None, Field(description="of the plan that was looked at: another one is refused")] = None
    confirmed: Annotated[
        list[Line], Field(max_length=1000, default_factory=list, description="steps whose question is answered by yes")
    ]
    resume: Annotated[Line | None, Field(description="a recovery that failed or was cancelled, to go on with")] = None
    dry_run: Annotated[bool, Field(description="only look what each step would do")] = False


class PlannedStepDocument(TypedDict):
    """A step of a plan; `confirm` is a question that must be answered by yes before it begins."""

    name: str
    type: str
    what: str
    needs: list[str]
    confirm: str | None


class RecoveryPlanDocument(TypedDict):
    """A plan; one with mistakes has no steps and no digest, but an `error`."""

    name: str
    description: str
    digest: str | None
    steps: list[PlannedStepDocument]
    error: dict[str, Any] | None
