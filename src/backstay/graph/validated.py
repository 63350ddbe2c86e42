"""Values that pydantic checks, whose refusal is an error of Backstay's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from backstay.core.names import printable
from backstay.errors import BackstayError, InvalidNode

_TOLD: Final = 5  # mistakes that one error tells
_INPUT_CHARACTERS: Final = 80  # of a wrong value that are repeated
_put: Final = object.__setattr__
_NO_NAMES: Final[set[str]] = set()  # one for all: pydantic copies it before it adds to it

if TYPE_CHECKING:
    # Pydantic has no public name for the type of its classes. Seen so, each class is called with its own fields.
    from pydantic._internal._model_construction import ModelMetaclass as _Refusing
else:

    class _Refusing(type(BaseModel)):
        """Turns pydantic's error into ours where a class is called.

        It stands here, not in an `__init__` of the class: pydantic validates nested values and JSON without calling
        the class, several times as fast, but only where there is no such `__init__`.
        """

        def __call__(cls, /, *args: object, **fields: object) -> object:
            try:
                return super().__call__(*args, **fields)
            except ValidationError as error:
                raise cls.refused(error, fields) from error


class Validated(BaseModel, metaclass=_Refusing):
    """A frozen value; unknown fields are refused. Each name is also read as camelCase.

    Where it is refused, `refusal` is raised: what is wrong with each field, at most the first five.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        str_max_length=65_536,
    )
    refusal: ClassVar[type[BackstayError]] = InvalidNode
    kind: ClassVar[str] = "value"  # what people call it

    @classmethod
    def refused(cls, error: ValidationError, given: object = None) -> BackstayError:
        """Our error for one of pydantic's; `given` is what was refused, whose id is told if it has one."""
        return cls.refusal(f"{cls._called(given)} is not valid", cause=mistakes(error))

    def changed(self, **fields: object) -> Self:
        """The same value with other fields, checked; raises `refusal`."""
        return self.parse({name: getattr(self, name) for name in type(self).model_fields} | fields)

    def compacted(self, **fields: object) -> Self:
        """An equal value, or with other fields that are valid, in a third of the memory.

        Pydantic gives each value a dictionary of its own; attributes that are set one by one share their names, if
        the first value of the class was compacted before there were many others.
        """
        new = object.__new__(type(self))
        for name, value in (self.__dict__ | fields if fields else self.__dict__).items():
            _put(new, name, value)
        _put(new, "__pydantic_fields_set__", self.__pydantic_fields_set__)
        _put(new, "__pydantic_extra__", self.__pydantic_extra__)
        _put(new, "__pydantic_private__", self.__pydantic_private__)
        return new

    @classmethod
    def parse(cls, given: object) -> Self:
        """The value that a mapping holds (or a value of this class itself); raises `refusal`."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise cls.refused(error, given) from error

    @classmethod
    def parse_json(cls, document: bytes | str) -> Self:
        """The value that a JSON object holds; raises `refusal`."""
        try:
            return cls.model_validate_json(document)
        except ValidationError as error:
            raise cls.refused(error) from error

    @classmethod
    def _called(cls, given: object) -> str:
        name = given.get("id") if isinstance(given, dict) else None
        return f"{cls.kind} {_shown(name)}" if isinstance(name, str) else f"the {cls.kind}"


def forget_given(value: Validated) -> None:
    """Forget which fields were given and which have their defaults.

    Pydantic keeps a set of names with each value, which is half of its memory where there are many small ones.
    """
    object.__setattr__(value, "__pydantic_fields_set__", _NO_NAMES)


def mistakes(error: ValidationError) -> str:
    """What pydantic found, in one line: `deps.0: …; status: …`."""
    found = error.errors(include_url=False, include_context=False)
    told = "; ".join(_mistake(one["loc"], one["msg"], one["input"]) for one in found[:_TOLD])
    return told if len(found) <= _TOLD else f"{told}; and {len(found) - _TOLD} more"


def _mistake(place: tuple[int | str, ...], message: str, given: object) -> str:
    where = ".".join(printable(str(part).encode("utf-8", "surrogatepass"))[:_INPUT_CHARACTERS] for part in place)
    what = message.removeprefix("Value error, ")
    value = f" (it is {_shown(given)})" if isinstance(given, str | int | float) else ""
    return f"{where}: {what}{value}" if where else what


def _shown(value: object) -> str:
    """A value as it can be printed, cut where it is long."""
    text = printable(str(value)[: 2 * _INPUT_CHARACTERS].encode("utf-8", "surrogatepass"))
    return text if len(text) <= _INPUT_CHARACTERS else text[:_INPUT_CHARACTERS] + "…"
