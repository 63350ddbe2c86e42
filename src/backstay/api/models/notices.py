"""Whom to tell of what: targets, matchers, alerts that are on."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from backstay.api.models.base import Asked, Line

Address = Annotated[str, StringConstraints(min_length=1, max_length=4000)]
Words = Annotated[list[Line], Field(max_length=1000, default_factory=list)]


class NewTarget(Asked):
    """Where messages go: an address of the notification library, which is a secret and never shown again."""

    name: Line
    address: Address
    enabled: bool = True


class ChangedTarget(Asked):
    """What becomes of a target; what is left out stays."""

    name: Line | None = None
    address: Address | None = None
    enabled: bool | None = None


class AskedMatcher(Asked):
    """Which messages go to which targets; an empty list of conditions matches all."""

    name: Line
    targets: Annotated[list[Line], Field(min_length=1, max_length=1000)]
    severities: Words
    kinds: Words
    policies: Words
    enabled: bool = True


class TargetDocument(TypedDict):
    """A target; its address is hidden."""

    id: str
    name: str
    origin: str
    address: str
    enabled: bool
    created_at: datetime


class MatcherDocument(TypedDict):
    """A matcher."""

    id: str
    name: str
    origin: str
    targets: list[str]
    severities: list[str]
    kinds: list[str]
    policies: list[str]
    enabled: bool
    created_at: datetime


class Tested(TypedDict):
    """A message that was sent to see whether it arrives."""

    message_id: str


class AlertDocument(TypedDict):
    """An alert that is on."""

    fingerprint: str
    kind: str
    subject: str
    severity: str
    title: str
    details: dict[str, Any]
    began_at: datetime
    count: int
