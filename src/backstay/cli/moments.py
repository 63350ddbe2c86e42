"""Times and lengths of time on the command lines of databases."""

from __future__ import annotations

from datetime import UTC, datetime

from backstay.cli.context import Context
from backstay.errors import InvalidRequest


def zoned_moment(context: Context, text: str) -> datetime:
    """A time that means the same to everybody."""
    from backstay.core.times import parse_moment

    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return parse_moment(text, now=context.clock.now(), zone=UTC)
    if moment.tzinfo is None:
        raise InvalidRequest(
            f"{text!r} is a time without a zone",
            cause="the server and this machine may be in different ones, and a wrong hour is lost data",
            hint=f"write it as in '{text.strip()}+00' or with the zone that is meant",
        )
    return moment.astimezone(UTC)


def seconds(text: str) -> float:
    """A length of time such as `90min`; a bare 0 needs no unit."""
    from backstay.core.times import Span

    if text.strip() == "0":
        return 0.0
    fixed = datetime(2000, 1, 1, tzinfo=UTC)
    return (fixed - Span.parse(text).subtract_from(fixed)).total_seconds()
