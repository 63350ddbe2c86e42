"""Keys that are used for longer than they should be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from backstay.control.metrics.repositories import newest_samples
from backstay.control.notifying.conditions.condition import Condition, Look, told_length


def old_keys(look: Look) -> Iterator[Condition]:
    """Each repository whose newest key is too old."""
    for sample in newest_samples(look.session):
        for key, seconds in sample.facts.get("key_ages", {}).items():
            age = timedelta(seconds=seconds) + (look.now - sample.time)
            if age <= look.expected.key_age:
                continue
            yield Condition(
                kind="key_age",
                subject=f"key {key} of repository {sample.repository[:8]}",
                severity="warning",
                title=f"the key of the repository is {told_length(age)} old",
                ended="the repository has a new key",
                cause=f"it should be changed every {told_length(look.expected.key_age)}",
                solution="run `backstay key rotate`: new data gets a new key, and nothing is written again",
            )
