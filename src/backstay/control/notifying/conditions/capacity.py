"""Repositories that are almost full, or will be soon."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from backstay.catalog.models import RepositorySample
from backstay.control.metrics.repositories import newest_samples, samples_since
from backstay.control.notifying.conditions.condition import Condition, Look, told_length
from backstay.core.quantities import format_size

_CALM: Final = 2  # percent below the limit at which an alert ends
_PAST: Final = timedelta(days=14)  # so much of the past tells the future
_LEAST: Final = timedelta(days=1)  # less tells nothing
_CALMER: Final = 1.25  # an alert about the future ends when there is so much more time
_MOST: Final = timedelta(days=3650)
_FREE: Final = "prune what is not needed and let `backstay gc` free its space, or give the repository more room"


def almost_full(look: Look) -> Iterator[Condition]:
    """Quotas and disks above their limit, and those that the growth of the last two weeks fills soon."""
    for sample in newest_samples(look.session):
        filled = [*_fillings(sample)]
        for what, used, size in filled:
            yield from _full(look, sample, what, used, size)
        if filled:
            yield from _soon(look, sample, min(size - used for _, used, size in filled))


def _fillings(sample: RepositorySample) -> Iterator[tuple[str, int, int]]:
    """What can fill up: its name, bytes used, bytes at most."""
    if sample.quota_bytes:
        yield "quota", sample.used_bytes, sample.quota_bytes
    size = sample.facts.get("disk_bytes")
    if size and sample.free_bytes is not None:
        yield "disk", size - sample.free_bytes, size


def _full(look: Look, sample: RepositorySample, what: str, used: int, size: int) -> Iterator[Condition]:
    percent = 100 * used / size
    condition = Condition(
        kind="capacity",
        subject=_subject(sample, what),
        severity="error" if percent >= 98 else "warning",
        title=f"the {what} of the repository is {percent:.0f} % full",
        ended=f"the {what} of the repository has room again",
        cause=f"{format_size(used)} of {format_size(size)} are used",
        solution=_FREE,
    )
    limit = look.expected.capacity_percent
    if percent >= limit or (condition.fingerprint in look.on and percent > limit - _CALM):
        yield condition


def _soon(look: Look, sample: RepositorySample, room: int) -> Iterator[Condition]:
    left = time_left(samples_since(look.session, sample.repository, sample.tier, sample.time - _PAST), room)
    if left is None:
        return
    condition = Condition(
        kind="capacity",
        subject=_subject(sample, "growth"),
        severity="warning",
        title=f"the repository will be full in {told_length(left)}",
        ended="the repository will not be full soon",
        cause=f"{format_size(room)} are free, at the growth of the last days",
        solution=_FREE,
    )
    if left < look.expected.forecast * (_CALMER if condition.fingerprint in look.on else 1):
        yield condition


def time_left(samples: list[RepositorySample], room: int) -> timedelta | None:
    """When a repository that grows on as it did will be full, by least squares; None if it does not grow."""
    if len(samples) < 3 or samples[-1].time - samples[0].time < _LEAST:
        return None
    days = [(one.time - samples[0].time) / timedelta(days=1) for one in samples]
    sizes = [one.used_bytes for one in samples]
    mean_day, mean_size = sum(days) / len(days), sum(sizes) / len(sizes)
    spread = sum((day - mean_day) ** 2 for day in days)
    growth = sum((day - mean_day) * (size - mean_size) for day, size in zip(days, sizes, strict=True)) / spread
    if growth <= 0:
        return None
    return min(timedelta(days=min(room / growth, _MOST.days)), _MOST)


def _subject(sample: RepositorySample, what: str) -> str:
    return f"{what} of repository {sample.repository[:8]}" + ("" if sample.tier == "hot" else f" ({sample.tier})")
