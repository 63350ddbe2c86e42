"""Who can make the output of a node again: registered functions, command templates, workers elsewhere.

from backstay.graph import recomputes

@recomputes("combine")
def combine(node, inputs):
    return {"id": node.id, "parts": [part.json() for part in inputs.values()]}
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from backstay.errors import InvalidRequest
from backstay.graph.command_way import CommandWay
from backstay.graph.model import Node
from backstay.graph.ways import Function, FunctionWay, Way

Registered = TypeVar("Registered", bound=Function)


class Recomputers:
    """For each capability what makes the outputs of its nodes. What is registered later takes the place of what was."""

    def __init__(self) -> None:
        self._ways: dict[str, Way] = {}

    def recomputes(self, capability: str) -> Callable[[Registered], Registered]:
        """Register the decorated function, which is called with the node and its inputs.

        `inputs` maps the ids of dependencies to values with `bytes()`, `json()`, `open()` and `path()`. The function
        gives bytes, a JSON value, a Path, or a stream. Of other threads it must be safe, and for `processes` or `dask`
        it must be importable.
        """

        def register(function: Registered) -> Registered:
            self.use(capability, FunctionWay(function))
            return function

        return register

    def command(self, capability: str, argv: Sequence[str]) -> None:
        """Register a command template, as `CommandWay` reads it; raises InvalidRequest."""
        self.use(capability, CommandWay.of(argv))

    def use(self, capability: str, way: Way) -> None:
        """Register any other way, such as a worker's; raises InvalidRequest."""
        if not capability:
            raise InvalidRequest("a capability has no name", hint="name what the metadata of the nodes say")
        self._ways[capability] = way

    def copy(self) -> Recomputers:
        """The same ways, to add others to."""
        other = Recomputers()
        other._ways.update(self._ways)
        return other

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What can be recomputed, sorted."""
        return tuple(sorted(self._ways))

    def registered(self, capability: str) -> Way | None:
        """The way that is registered for a capability."""
        return self._ways.get(capability)

    def way(self, node: Node, *, run_commands: bool) -> Way | str:
        """How to make a node's output again, or why it cannot be.

        What was registered here comes before the command in the node, which only runs if that is allowed.
        """
        capability, command = node.metadata.capability, node.metadata.command
        if (way := self._ways.get(capability)) is not None:
            return way
        if command and run_commands:
            return CommandWay(command)
        if command:
            shown = " ".join(command)
            return f"its own command `{shown}` may not run: the policy's run_commands (--run-commands) allows it"
        if not capability:
            return "it has neither a capability nor a command"
        return f"nothing is registered that recomputes {capability!r}"


DEFAULT: Final = Recomputers()
recomputes: Final = DEFAULT.recomputes
