"""Times and intervals on the command lines of databases."""

from __future__ import annotations

from datetime import UTC, datetime

from backstay.cli.context import Context
from backstay.core.times import parse_length
from backstay.errors import InvalidRequest, NaiveTimestamp


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


def parse_every(text: str, option: str = "--every") -> float:
    """The seconds of an option such as --every. Raises InvalidRequest."""
    seconds = parse_length(text).total_seconds()
    if seconds <= 0:
        raise InvalidRequest(f"{option} must be longer than nothing", cause="it was given as 0", hint="write 5s")
    return seconds
