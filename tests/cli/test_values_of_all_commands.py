"""What every parameter of every command makes of a value does not depend on whether a converter was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, ClassVar

from backstay.cli.as_typed import take_as_typed
from backstay.cli.context import Context
from backstay.cli.main import _all, command_tree
from backstay.cli.signals import Interrupts
from backstay.core.clock import SystemClock

TEXTS = ("", "x", " x ", "5", "-1", "0", "01", "400", "99999999", "1.5", "nan", "yes", "no", "\udcff", "a\x00b", "-")
VALUES: list[object] = [
    *(None, True, False, 5, b"bytes", (), [], ["a"], ("a", "b"), ["\udcff"], [""], ["a", 1], ("a", None)),
    *TEXTS,
]


def _parameters() -> Iterator[tuple[Any, Any]]:
    """Each kind of parameter that there is, with a context; many commands share theirs."""
    seen = set()
    for command in _all(command_tree()):
        context = command.context_class(command, info_name="x", obj=_context())
        for param in command.get_params(context):
            kind, info = param.type_descriptor.annotation, param.type_descriptor.parameter_info
            limits = (info.min, info.max, info.parser, info.exists, info.case_sensitive)
            sort = (str(kind), param.nargs, param.multiple, param.required, param.default, param.callback, limits)
            if param.name != "help" and repr(sort) not in seen:
                seen.add(repr(sort))
                yield param, context


def _context() -> Context:
    clock = SystemClock()
    return Context({}, clock, Interrupts(clock))


def _values(param: Any) -> Iterator[object]:
    yield from VALUES
    yield param.default
    for choice in param.type_descriptor.choices or ():
        word = str(choice.value if isinstance(choice, Enum) else choice)
        yield from (choice, word, word.upper(), f"{word} ", [word], (word, word), [choice])


def _outcome(convert: Callable[[], object]) -> tuple[object, ...]:
    try:
        made = convert()
    except Exception as refused:  # noqa: BLE001 - compared with the other way's
        return type(refused), str(refused), getattr(refused, "message", None)
    return type(made), repr(made)


def test_every_parameter_takes_and_refuses_the_same() -> None:
    tried = spared = 0
    for param, context in _parameters():
        spared += "process_value" in vars(param)
        for value in _values(param):
            tried += 1
            short = _outcome(lambda: param.process_value(context, value))  # noqa: B023 - called at once
            long = _outcome(lambda: type(param).process_value(param, context, value))  # noqa: B023
            assert short == long, (context.command.name, param.name, value)
    assert tried > 1000
    assert spared > 30


def test_a_tree_that_is_kept_asks_each_converter_through_one_short_cut_however_often_it_is_used() -> None:
    command = command_tree()
    context = command.context_class(command, info_name="x", obj=_context())
    before = [vars(param).get("process_value") for param in command.get_params(context)]
    assert None not in before
    assert [param.process_value for param in command.get_params(context)] == before


def test_parameters_that_do_not_say_what_they_convert_to_are_left_alone() -> None:
    class Plain:
        def process_value(self, context: object, value: object) -> object:
            return context, value

    class Command:
        params: ClassVar = [Plain()]

        def get_params(self, context: object) -> list[Plain]:
            assert context
            return self.params

    command = Command()
    take_as_typed(command)
    (plain,) = command.get_params("context")
    assert plain.process_value("context", None) == ("context", None)
    assert vars(plain) == {}
