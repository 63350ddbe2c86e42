"""What an output must be beside having the right bytes: the checks that users register for a capability.

from backstay.graph.validation import Validators

validators = Validators()
validators.schema("metrics", Metrics)            # a pydantic model, or any type: the output must be JSON of that form

@validators.validates("features")
def enough(node, value):
    return value.bytes().count(b"\\n") > 100       # False, a reason as a string, or an error: the output is not valid
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from pydantic import TypeAdapter, ValidationError

from backstay.errors import InputLost, InvalidDocument, OutputMismatch
from backstay.graph.inputs import Input
from backstay.graph.model import Node, ValidationResult
from backstay.graph.raised import said
from backstay.graph.strict_json import check_json
from backstay.graph.validated import mistakes

Validator: TypeAlias = Callable[[Node, Input], Any]
Registered = TypeVar("Registered", bound=Validator)


class Validators:
    """For each capability what checks the outputs of its nodes. Several may be registered; all must agree."""

    def __init__(self) -> None:
        self._checks: dict[str, list[Validator]] = {}

    def validates(self, capability: str) -> Callable[[Registered], Registered]:
        """Register the decorated function: called with the node and its output.

        It gives True or None for a valid output, False, a reason or a ValidationResult for another, or raises.
        """

        def register(check: Registered) -> Registered:
            self._checks.setdefault(capability, []).append(check)
            return check

        return register

    def schema(self, capability: str, form: Any) -> None:  # noqa: ANN401 - any type that pydantic understands
        """Require outputs to be JSON documents of a pydantic model's form, or of any type that pydantic knows.

        Nothing is taken for what it is not: `"1"`, `1.0` and `true` are no int.
        """
        adapter: TypeAdapter[Any] = TypeAdapter(form)

        def fits(node: Node, value: Input) -> str | None:
            del node
            document = value.bytes()
            try:
                check_json(document, "it")
                adapter.validate_json(document, strict=True)
            except InvalidDocument as error:
                return error.cause
            except ValidationError as error:
                return mistakes(error)
            return None

        self.validates(capability)(fits)

    def apply(self, node: Node, pieces: Callable[[], Iterator[bytes]], scratch: Path) -> None:
        """Raise OutputMismatch unless all that is registered for a node finds its output valid."""
        for check in self._checks.get(node.metadata.capability, ()):
            try:
                verdict = check(node, Input(node.id, pieces, scratch))
            except InputLost:
                raise
            except Exception as error:
                raise _invalid(node, f"{type(error).__name__}: {said(error)}") from error
            if isinstance(verdict, ValidationResult):
                verdict = True if verdict.valid else "; ".join(verdict.errors)
            if verdict is not None and verdict is not True:
                raise _invalid(node, verdict if isinstance(verdict, str) and verdict else "its validator says no")

    def has(self, node: Node) -> bool:
        """Whether anything is registered for a node."""
        return node.metadata.capability in self._checks


def _invalid(node: Node, why: str) -> OutputMismatch:
    return OutputMismatch(f"the output of {node.id} is not valid", cause=why)


DEFAULT: Final = Validators()
validates: Final = DEFAULT.validates
