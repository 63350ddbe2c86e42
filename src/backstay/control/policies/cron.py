"""Cron expressions: what is wrong with one, and when it comes next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator

from backstay.control.policies.values import Wrong
from backstay.core.quantities import plural

_FIELDS: Final = (
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31"),
    ("month", "1 to 12 or JAN to DEC"),
    ("day of the week", "0 to 7 or SUN to SAT"),
)
_ORDINALS: Final = ("1st", "2nd", "3rd", "4th", "5th")
_BEGIN: Final = datetime(2024, 1, 1, tzinfo=UTC)


def check_cron(text: str) -> str:
    """The expression itself. Raises Wrong, with the field that cannot be."""
    fields = text.split()
    if len(fields) != len(_FIELDS):
        names = ", ".join(name for name, _ in _FIELDS)
        raise Wrong(
            f"{text!r} is no cron expression: it has {plural(len(fields), 'field')}, not 5", f"the fields are {names}"
        )
    for at, field in enumerate(fields):
        alone = " ".join(field if at == other else "*" for other in range(len(fields)))
        if not _is_read(alone):
            name, values = _FIELDS[at]
            message = f"{text!r} is no cron expression: the {name} ({_ORDINALS[at]} field) cannot be {field!r}"
            raise Wrong(message, f"it takes {values}, *, lists, ranges and steps such as */15")
    if not (_is_read(" ".join(fields)) and next(CronSim(" ".join(fields), _BEGIN), None)):
        raise Wrong(f"{text!r} never comes: no such month has such a day")
    return text


def _is_read(text: str) -> bool:
    try:
        CronSim(text.upper(), _BEGIN)
    except (CronSimError, ValueError, TypeError, AssertionError):  # the latter for odd mixtures, such as 5L/2
        return False
    return True


Cron = Annotated[str, AfterValidator(check_cron)]
