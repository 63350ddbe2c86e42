"""The kinds of values that a policy file has, each checked when it is read and kept as it was written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Annotated, Any, Final, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from backstay.control.policies.document import resolved
from backstay.control.policies.interpolation import Outside
from backstay.core.sizes import parse_size
from backstay.core.times import Span, parse_length
from backstay.errors import InvalidRequest

_LARGEST: Final = 100_000
HIDDEN_ADDRESS: Final = "hidden address"  # marks a value that is shown by its scheme alone, if it has one


class Model(BaseModel):
    """A table of a policy file: nothing in it is changed, and nothing that it does not know is passed over."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Wrong(ValueError):
    """What is wrong with a value, and what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


ValueT = TypeVar("ValueT")


def understood(check: Callable[[str], object]) -> Callable[[str], str]:
    """A validator from a function that raises InvalidRequest for texts that it does not understand."""

    def validate(text: str) -> str:
        try:
            check(text)
        except InvalidRequest as error:
            raise Wrong(str(error), error.hint) from error
        return text

    return validate


def _from_outside(value: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
    """The number or truth value that a text from a variable is."""
    return resolved(value) if isinstance(value, Outside) else value


def _as_text(value: Any) -> Any:  # noqa: ANN401
    """A size or length may be a number alone."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _zone(name: str) -> str:
    zone_of(name)
    return name


def zone_of(name: str) -> tzinfo:
    """The time zone of this name. Raises Wrong."""
    if name == "UTC":  # also where no zones are installed
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Wrong(f"there is no time zone {name!r}", "write one of the IANA names, such as Europe/Berlin") from None


def _whole_path(text: str) -> str:
    if not text.startswith(("/", "~/")) and text != "~":
        raise Wrong(f"the path {text!r} does not begin with a slash", "nothing says where a relative path begins")
    if "\0" in text:
        raise Wrong("a path has no null characters")
    return text


def _sound(text: str) -> str:
    """A text that can be an argument of a program, and a word in a snapshot. Raises Wrong."""
    if not text.strip():
        raise Wrong("must not be empty")
    if "\0" in text:
        raise Wrong("holds a null character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Wrong("is not UTF-8") from None
    return text


def expanded(path: str, environ: Mapping[str, str]) -> str:
    """A path with the user's home in place of `~`."""
    home = environ.get("HOME", "")
    return home.rstrip("/") + path[1:] if home and (path == "~" or path.startswith("~/")) else path


def several(count: int) -> Any:  # noqa: ANN401 - pydantic's own type
    """A list that is not shorter."""
    return Field(min_length=count)


Flag = Annotated[bool, BeforeValidator(_from_outside), Field(strict=True)]
Count = Annotated[int, BeforeValidator(_from_outside), Field(strict=True, ge=0, le=_LARGEST)]
Ratio = Annotated[float, BeforeValidator(_from_outside), Field(allow_inf_nan=False)]
Port = Annotated[int, BeforeValidator(_from_outside), Field(strict=True, ge=1, le=65535)]
Text = Annotated[str, AfterValidator(_sound)]
WholePath = Annotated[str, AfterValidator(_whole_path)]
Size = Annotated[str, BeforeValidator(_as_text), AfterValidator(understood(parse_size))]
Length = Annotated[str, BeforeValidator(_as_text), AfterValidator(understood(parse_length))]
CalendarSpan = Annotated[str, AfterValidator(understood(Span.parse))]
Zone = Annotated[str, AfterValidator(_zone)]


def told_words(words: Sequence[object]) -> str:
    """`a, b or c`."""
    *most, last = map(str, words)
    return f"{', '.join(most)} or {last}" if most else last
