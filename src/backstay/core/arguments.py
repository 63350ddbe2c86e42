"""Arguments of public calls: one of another type or size than its annotation says is refused where it comes in.

Python finds a wrong one deep inside, by an error that says nothing of the call, or not at all: a text is a sequence of
texts too. What is said never repeats a value, which may be a password, but where only certain words are taken.
"""

from __future__ import annotations

import collections.abc
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import wraps
from math import inf
from numbers import Integral, Real
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from backstay.errors import InvalidRequest

KindT = TypeVar("KindT")

_LONGEST_WORD: Final = 40
_NUMBERS: Final[Mapping[object, type]] = {int: Integral, float: Real}  # those of other libraries are numbers too


@dataclass(frozen=True, slots=True, kw_only=True)
class _Misfit:
    """What does not fit: its place within the argument, the value, and what it should be.

    If it is not by its type, `why`, and what to `give` instead.
    """

    where: str
    value: object
    hint: Any
    why: str = ""
    give: str = ""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Which numbers an argument takes that is annotated with them."""

    least: float
    most: float = inf

    def __str__(self) -> str:
        return f"at least {self.least}" if self.most == inf else f"{self.least} to {self.most}"


_Check: TypeAlias = Callable[[object], _Misfit | None]


def checks_arguments(kind: type[KindT]) -> type[KindT]:
    """The class, whose constructor and public methods, also inherited ones, raise InvalidRequest for wrong types."""
    for name in dir(kind):
        if name.startswith("_") and name != "__init__":
            continue
        found = inspect.getattr_static(kind, name)
        label = kind.__name__ if name == "__init__" else f"{kind.__name__}.{name}"
        if isinstance(found, classmethod):
            setattr(kind, name, classmethod(_checking(found.__func__, label)))
        elif inspect.isfunction(found):
            setattr(kind, name, _checking(found, label))
    return kind


def require_arguments(call: Callable[..., Any], *args: object, **kwargs: object) -> None:
    """Check the arguments of a call that will be made elsewhere, if it checks them. Raises InvalidRequest."""
    arguments = getattr(call, "__arguments__", None)
    if arguments is not None:
        arguments.require(args, kwargs)


def _checking(function: Callable[..., Any], label: str) -> Callable[..., Any]:
    if hasattr(function, "__arguments__"):
        return function
    arguments = _Arguments(function, label)

    @wraps(function)
    def checking(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function has it
        arguments.require(args, kwargs)
        return function(*args, **kwargs)

    @wraps(function)
    async def awaited(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function has it
        arguments.require(args, kwargs)
        return await function(*args, **kwargs)

    made: Any = awaited if inspect.iscoroutinefunction(function) else checking
    made.__arguments__ = arguments
    return made  # type: ignore[no-any-return]


class _Arguments:
    """The parameters of a function; their annotations are looked at when it is called first, when all is loaded."""

    def __init__(self, function: Callable[..., Any], label: str) -> None:
        self._function, self._label = function, label
        self._checks: dict[str, _Check] | None = None
        self._positional: list[str] = []

    def require(self, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """Raises InvalidRequest for the first that does not fit; too many or too few are Python's to refuse."""
        checks = self._load() if self._checks is None else self._checks
        for name, value in zip(self._positional, args, strict=False):
            if (check := checks.get(name)) is not None and (misfit := check(value)) is not None:
                raise self._refused(name, misfit)
        for name, value in kwargs.items():
            if (check := checks.get(name)) is not None and (misfit := check(value)) is not None:
                raise self._refused(name, misfit)

    def _load(self) -> dict[str, _Check]:
        hints = _hints(self._function)
        checks: dict[str, _Check] = {}
        positional: list[str] = []
        for name, parameter in inspect.signature(self._function).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if parameter.kind is not parameter.KEYWORD_ONLY:
                positional.append(name)
            if name in hints:
                checks[name] = _check_of(hints[name])
        self._positional, self._checks = positional, checks
        return checks

    def _refused(self, name: str, misfit: _Misfit) -> InvalidRequest:
        return InvalidRequest(
            f"{self._label} does not take this as `{name}{misfit.where}`",
            cause=misfit.why or f"it is {_told(misfit.value, misfit.hint)}",
            hint=f"give {misfit.give or _described(misfit.hint)}",
        )


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations. A class that is imported for type checkers alone is known by its name."""
    by_name: dict[str, Any] = {}
    while True:
        try:
            return get_type_hints(function, localns=by_name or None, include_extras=True)
        except NameError as error:
            name = str(error.name)
            by_name[name] = _NamedClass(name, (), {})


class _NamedClass(type):
    """Stands for the class of this name."""

    def __instancecheck__(cls, instance: object) -> bool:
        return any(kind.__name__ == cls.__name__ for kind in type(instance).__mro__)


# -- what fits


def _check_of(hint: Any) -> _Check:  # noqa: ANN401 - any annotation
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _any_of(args, hint)
    if origin is Annotated:
        return _annotated(args[0], [one for one in args[1:] if isinstance(one, Bounds)])
    if origin is Literal:
        return _fitting(lambda value: any(type(value) is type(one) and value == one for one in args), hint)
    if origin is collections.abc.Callable:
        return _fitting(callable, hint)
    if isinstance(origin, type):
        return _contained(origin, args, hint)
    if _is_plain(hint):
        wanted = _NUMBERS.get(hint, hint)
        if hint is str or issubclass(hint, PurePath):
            return _text(hint)
        return _fitting(lambda value: isinstance(value, wanted), hint)
    if getattr(hint, "_is_protocol", False):
        names = [name for kind in hint.__mro__ for name in vars(kind) if not name.startswith("_")]
        return _fitting(lambda value: all(_has(value, name) for name in names), hint)
    return _fits_always


def _fits_always(value: object) -> None:
    del value


def _fitting(fits: Callable[[object], bool], hint: Any) -> _Check:  # noqa: ANN401 - any annotation
    return lambda value: None if fits(value) else _Misfit(where="", value=value, hint=hint)


def _annotated(hint: Any, bounds: Sequence[Bounds]) -> _Check:  # noqa: ANN401 - any annotation
    kind = _check_of(hint)
    if not bounds:
        return kind

    def check(value: Any) -> _Misfit | None:  # noqa: ANN401 - a number, once `kind` has seen it
        if (misfit := kind(value)) is not None:
            return misfit
        for one in bounds:
            if not one.least <= value <= one.most:
                return _Misfit(where="", value=value, hint=hint, why=f"it is {value}", give=str(one))
        return None

    return check


def _text(hint: type) -> _Check:
    def check(value: object) -> _Misfit | None:
        return _unwritable(value, hint) if isinstance(value, hint) else _Misfit(where="", value=value, hint=hint)

    return check


def _unwritable(value: object, hint: Any) -> _Misfit | None:  # noqa: ANN401 - any annotation
    """What is wrong with a text that no encoding takes; those that stand for bytes of a file's name are none."""
    text = value if isinstance(value, str) else str(value) if isinstance(value, PurePath) else ""
    if text.isascii():
        return None
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return _Misfit(
            where="",
            value=value,
            hint=hint,
            why="it has half a character, a lone surrogate",
            give="text that can be written as UTF-8",
        )
    return None


def _any_of(hints: Sequence[Any], hint: Any) -> _Check:  # noqa: ANN401 - any annotation
    plain = tuple(_NUMBERS.get(one, one) for one in hints if _is_plain(one))
    others = [_check_of(one) for one in hints if not _is_plain(one)]
    if _fits_always in others:
        return _fits_always

    def check(value: object) -> _Misfit | None:
        if isinstance(value, plain):
            return _unwritable(value, hint)
        inner: _Misfit | None = None
        for one in others:
            if (misfit := one(value)) is None:
                return None
            if misfit.where or misfit.why:  # of the right kind, with something wrong in it
                inner = misfit
        return inner or _Misfit(where="", value=value, hint=hint)

    return check


def _is_plain(hint: Any) -> bool:  # noqa: ANN401 - any annotation
    """Whether it is a class whose instances are what fits."""
    return (
        isinstance(hint, type)
        and hint is not Any
        and get_origin(hint) is None
        and not getattr(hint, "_is_protocol", False)
    )


def _has(value: object, name: str) -> bool:
    """Whether there is such an attribute, without asking for it: a property may do work."""
    kind = type(value)
    return hasattr(kind, name) or name in getattr(value, "__dict__", ()) or hasattr(kind, "__getattr__")


def _contained(origin: type, args: tuple[Any, ...], hint: Any) -> _Check:  # noqa: ANN401 - any annotation
    """Of what is looked into without using it up, the items are checked too; a text is no list of texts."""
    is_open = issubclass(origin, Sequence | AbstractSet) and (len(args) == 1 or args[1:] == (...,))
    item = _check_of(args[0]) if is_open else None

    def check(value: object) -> _Misfit | None:
        if not isinstance(value, origin) or isinstance(value, str | bytes | bytearray | memoryview):
            return _Misfit(where="", value=value, hint=hint)
        if item is None or not isinstance(value, Sequence | AbstractSet):
            return None
        for number, one in enumerate(value):
            if (misfit := item(one)) is not None:
                return replace(misfit, where=f"[{number}]{misfit.where}")
        return None

    return check


# -- in words


def _told(value: object, hint: Any) -> str:  # noqa: ANN401 - any annotation
    if value is None:
        return "None"
    if isinstance(value, str) and get_origin(hint) is Literal and len(value) <= _LONGEST_WORD:
        return repr(value)
    return _one(type(value).__name__)


def _described(hint: Any) -> str:  # noqa: ANN401 - any annotation
    return " or ".join(dict.fromkeys(_alternatives(hint)))


def _alternatives(hint: Any) -> Iterable[str]:  # noqa: ANN401 - any annotation
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return [word for one in args if one is not NoneType for word in _alternatives(one)] + [
            "None" for one in args if one is NoneType
        ]
    if origin is Annotated:
        return _alternatives(args[0])
    if origin is Literal:
        return [repr(one) for one in args]
    if origin is collections.abc.Callable:
        return ["a function"]
    if isinstance(origin, type):
        if issubclass(origin, Mapping):
            return ["a dict"]
        items = _alternatives(args[0]) if args else []
        return [f"a list of {' or '.join(dict.fromkeys(word.partition(' ')[2] or word for word in items))}"]
    return ["None" if hint is NoneType else _one(getattr(hint, "__name__", str(hint)))]


def _one(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
