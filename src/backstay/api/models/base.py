"""What all requests have in common: no unknown keys, nothing without bounds, nothing that cannot be stored."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, TypeVar

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from typing_extensions import TypedDict

from backstay.core.ids import ULID, is_ulid

ItemT = TypeVar("ItemT")

DEFAULT_LIMIT: Final = 100
MAXIMUM_LIMIT: Final = 1000
LAST_YEAR: Final = 8999  # calendars end with 9999, and what is reckoned from a time must have room
_NO_YEAR: Final = f"in UTC this time lies outside of the years 1 to {LAST_YEAR}"


def storable(text: str) -> str:
    """A text without control characters and halves of characters, which databases refuse or terminals obey."""
    for character in text:
        if (
            (character < " " and character not in "\n\t")
            or unicodedata.category(character) == "Cs"
            or character == "\x7f"
        ):
            raise ValueError("there are characters in it that cannot be stored")
    return text


def _moment(value: Any) -> Any:  # noqa: ANN401 - whatever came
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or len(value) > 64:
        raise ValueError("write a time like 2027-01-31T12:00:00Z")
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("write a time like 2027-01-31T12:00:00Z") from None
    if found.tzinfo is None:
        raise ValueError("a time needs a zone, such as Z at its end")
    try:
        year = found.astimezone(UTC).year
    except OverflowError:
        raise ValueError(_NO_YEAR) from None
    if year > LAST_YEAR:
        raise ValueError(_NO_YEAR)
    return found


def _whole_id(text: str) -> str:
    if not is_ulid(text):
        raise ValueError("write the whole id: a name, or the beginning of an id, means another one the next time")
    return text


Line = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(storable)]
Prose = Annotated[str, StringConstraints(max_length=4000), AfterValidator(storable)]
PathText = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(storable)]
Moment = Annotated[datetime, BeforeValidator(_moment, json_schema_input_type=datetime), Field(strict=False)]

Ident = Annotated[str, Path(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f/]+$")]
WholeId = Annotated[str, Path(json_schema_extra={"pattern": f"^{ULID.pattern}$"}), AfterValidator(_whole_id)]


class Asked(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, validate_by_name=True, allow_inf_nan=False
    )


class Paged(BaseModel):
    """Which part of a list is wanted."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    limit: Annotated[int, Field(ge=1, le=MAXIMUM_LIMIT, description="how many items at most")] = DEFAULT_LIMIT
    cursor: Annotated[
        str | None, StringConstraints(min_length=1, max_length=2000), Field(description="`next` of the page before")
    ] = None


PageQuery = Annotated[Paged, Query()]


class PageOf(TypedDict, Generic[ItemT]):
    """One page of a list; `next` is the cursor of the following one, null at the end."""

    items: list[ItemT]
    next: str | None
