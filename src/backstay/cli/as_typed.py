"""Values that need no conversion, of which most command lines have no others: the library for the rest stays away."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin


def take_as_typed(command: Any) -> None:  # noqa: ANN401 - typer's own
    """Have the parameters of a command that are not given, or given as what they are, pass without a converter.

    typer builds one with pydantic for every parameter of a command, given or not: 70 ms of the start, measured with
    typer 0.29. All other values are left to it, and whatever is missing.
    """
    all_of = command.get_params

    def get_params(ctx: Any) -> list[Any]:  # noqa: ANN401
        params: list[Any] = all_of(ctx)
        for param in params:
            if "process_value" not in vars(param):
                _spare(param)
        return params

    command.get_params = get_params


def _spare(param: Any) -> None:  # noqa: ANN401
    convert, kind = param.process_value, _kind(param)

    def process(ctx: Any, value: Any) -> Any:  # noqa: ANN401
        missing = param.required and not value
        if missing or not (value is None or _is_already(kind, value, param.default)):
            return convert(ctx, value)
        if value is None:
            value = () if param.multiple or param.nargs == -1 else None
        elif kind == list[str]:
            value = list(value)
        return value if param.callback is None else param.callback(ctx, param, value)

    if kind is not None:
        param.process_value = process


def _kind(param: Any) -> Any:  # noqa: ANN401
    """What it converts to; None when this is a typer that does not say so."""
    return getattr(getattr(param, "type_descriptor", None), "annotation", None)


def _is_already(kind: Any, value: Any, default: Any) -> bool:  # noqa: ANN401
    """Whether a conversion would change nothing: a text, texts, one of the choices, or a default of its own kind."""
    if kind == list[str]:
        return isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value)
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    return isinstance(kind, type) and isinstance(value, kind) and (kind is str or value is default)
