"""What people say of a schedule, checked before anything is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice, pairwise
from math import inf
from typing import Any, Final, NoReturn

from backstay.catalog.models.base import Document
from backstay.control.policies.cron import check_cron
from backstay.control.policies.fire_times import FireTimes
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.values import Wrong, told_words, zone_of
from backstay.control.scheduling.kinds import OF_REPOSITORY, TYPES
from backstay.control.scheduling.work import require_work
from backstay.errors import InvalidRequest

LONGEST_JITTER_S: Final = 86_400
LONGEST_GRACE_S: Final = 366 * 86_400
_LONGEST_NAME: Final = 255
_LONGEST_RETENTION: Final = 36_500  # days
_BEGIN: Final = datetime(2024, 1, 1, tzinfo=UTC)
_COMPARED: Final = 50  # times, for the least time between two of them
_OPTIONS: Final = ("tags", "description")
_MOST_TAGS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSpec:
    """A schedule as somebody asks for it; see `ScheduleRecord`. `sources` are names of sources or of their snapshots.

    `options` may have `tags` and `description`, for the snapshots of a backup.
    """

    name: str
    policy: str = ""
    type: str = "incremental"
    cron: str
    timezone: str = "UTC"
    sources: Sequence[str] = ()
    enabled: bool = True
    coalesce: bool = True
    misfire_grace_s: int | None = None
    jitter_s: int = 0
    retention_days: int | None = None
    options: Document = field(default_factory=dict)


def checked(spec: ScheduleSpec, policies: LoadedPolicies | None) -> ScheduleSpec:
    """The same. Raises InvalidRequest, whose title begins with the field that cannot be."""
    name = spec.name.strip()
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        _refuse("name", f"it is {spec.name[:80]!r}", f"give 1 to {_LONGEST_NAME} characters that can be seen")
    if spec.type not in TYPES:
        _refuse("type", f"it is {spec.type[:80]!r}", f"there are {told_words(list(TYPES))}")
    _understood("cron", check_cron, spec.cron)
    _understood("timezone", zone_of, spec.timezone)
    _check_jitter(spec)
    if spec.misfire_grace_s is not None:
        _within("misfire_grace_s", spec.misfire_grace_s, LONGEST_GRACE_S)
    if spec.retention_days is not None:
        _within("retention_days", spec.retention_days, _LONGEST_RETENTION, least=1)
    _check_options(spec.options)
    _check_policy(spec, policies)
    return spec


def _check_jitter(spec: ScheduleSpec) -> None:
    """Longer than between two times, one would overtake the other."""
    _within("jitter_s", spec.jitter_s, LONGEST_JITTER_S)
    if not spec.jitter_s:
        return
    times = list(islice(FireTimes(spec.cron, zone_of(spec.timezone)).after(_BEGIN), _COMPARED))
    shortest = min(((later - earlier).total_seconds() for earlier, later in pairwise(times)), default=inf)
    if spec.jitter_s >= shortest:
        _refuse("jitter_s", f"it is {spec.jitter_s}", f"give less than the {shortest:.0f} seconds between two times")


def _check_policy(spec: ScheduleSpec, policies: LoadedPolicies | None) -> None:
    if spec.type in OF_REPOSITORY and spec.policy:
        _refuse("policy", f"{spec.type} is about the whole repository", "leave it out")
    if spec.type not in OF_REPOSITORY and not spec.policy:
        _refuse("policy", "it is missing", "name a policy of the policy file")
    if policies is not None:
        require_work(spec.type, spec.policy, spec.sources, policies)


def _check_options(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name not in _OPTIONS:
            _refuse("options", f"there is no {name[:80]!r}", f"there are {told_words(_OPTIONS)}")
        if name == "tags" and not (
            isinstance(value, (list, tuple)) and len(value) <= _MOST_TAGS and all(map(_is_text, value))
        ):
            _refuse("options", "tags are no list of words", f"give at most {_MOST_TAGS} texts")
        if name == "description" and not (value is None or isinstance(value, str)):
            _refuse("options", "the description is no text", "give a text")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value.strip()) > 0 and len(value) <= _LONGEST_NAME and "\0" not in value


def _understood(field_name: str, check: Callable[[str], object], text: str) -> None:
    try:
        check(text)
    except Wrong as wrong:
        raise InvalidRequest(f"{field_name} cannot be so", cause=str(wrong), hint=wrong.hint) from wrong


def _within(field_name: str, value: int, most: int, *, least: int = 0) -> None:
    if not least <= value <= most:
        _refuse(field_name, f"it is {value}", f"give {least} to {most}")


def _refuse(field_name: str, cause: str, hint: str) -> NoReturn:
    raise InvalidRequest(f"{field_name} cannot be so", cause=cause, hint=hint)
