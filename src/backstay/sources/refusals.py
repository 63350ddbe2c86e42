"""What a system refuses to do for an item is reported, and the rest is done all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Refusal: TypeAlias = OSError | OverflowError | ValueError  # the last two for values that no system call can take
ReportFailure: TypeAlias = Callable[[str, Refusal], None]  # (what was tried, why it failed)


def words_of(error: OSError) -> str:
    """The system's own words, to stand within a line."""
    words = error.strerror or str(error)
    return words[:1].lower() + words[1:]


def tried(report: ReportFailure, what: str, call: Callable[..., None], *arguments: Any, **options: Any) -> bool:  # noqa: ANN401
    """Whether the call succeeded; if not, that is reported."""
    try:
        call(*arguments, **options)
    except (OSError, OverflowError, ValueError) as error:
        report(what, error)
        return False
    return True
