"""Times on the command lines of databases."""

from __future__ import annotations

from datetime import UTC, datetime

from backstay.cli.context import Context
from backstay.errors import NaiveTimestamp


def zoned_moment(context: Context, text: str) -> datetime:
    """A time that means the same to everybody. Raises NaiveTimestamp, InvalidRequest."""
    from backstay.core.times import parse_moment

    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return parse_moment(text, now=context.clock.now(), zone=UTC)
    if moment.tzinfo is None:
        raise NaiveTimestamp(
            f"{text!r} is a time without a zone",
            cause="the server and this machine may be in different ones, and a wrong hour is lost data",
            hint=f"write it as in '{text.strip()}+00' or with the zone that is meant",
        )
    return moment.astimezone(UTC)
