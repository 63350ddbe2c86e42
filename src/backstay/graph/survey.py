"""How the outputs of nodes are before a restore: looked at when asked for, many of them in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from backstay.core.pipeline import Workers
from backstay.graph.model import Node
from backstay.graph.outputs import DAMAGED, Outputs, OutputState
from backstay.graph.scope import Scope
from backstay.graph.validation import Validators

_AT_ONCE: Final = 1024  # nodes that one thread looks at before it is given more, where their outputs are read
_UNREAD_AT_ONCE: Final = 16_384  # where they are not: each time the log of values is looked at anew


class Survey:
    """The states of outputs, each looked up once. What is found out later can be entered."""

    def __init__(
        self, scope: Scope, outputs: Outputs, validators: Validators, scratch: Path, *, read: bool, threads: int
    ) -> None:
        self._scope, self._outputs, self._validators = scope, outputs, validators
        self._scratch, self._read, self._threads = scratch, read, threads
        self._states: list[OutputState | None] = [None] * len(scope.keys)

    def __call__(self, number: int) -> OutputState:
        """The state of one node's output."""
        state = self._states[number]
        if state is None:
            state = self._states[number] = self._look_at_all([number])[0][1]
        return state

    def look_ahead(self, numbers: Sequence[int]) -> None:
        """Look at many of them now, on several threads."""
        left = [number for number in numbers if self._states[number] is None]
        at_once = _AT_ONCE
        if not self._read:
            # Values lie together by their ids; what is read lies together in the order in which it was made.
            left.sort(key=lambda number: self._scope.nodes[number].hash or "")
            at_once = _UNREAD_AT_ONCE
        groups = (left[at : at + at_once] for at in range(0, len(left), at_once))
        with Workers(self._threads, "look") as workers:
            for found in workers.ordered(self._look_at_all, groups, weigh=len, limit=4 * self._threads * at_once):
                for number, state in found:
                    self._states[number] = state

    def enter(self, number: int, state: OutputState) -> None:
        """What turned out to be the state."""
        self._states[number] = state

    def _look_at_all(self, numbers: list[int]) -> list[tuple[int, OutputState]]:
        nodes = [self._scope.placed(number) for number in numbers]
        completed = [node for node in nodes if node.status == "completed"]
        found = iter(self._outputs.look(completed, read=self._read))
        states = [
            self._validated(node, next(found)) if node.status == "completed" else _no_output(node) for node in nodes
        ]
        return list(zip(numbers, states, strict=True))

    def _validated(self, node: Node, state: OutputState) -> OutputState:
        if self._read and state.usable and self._validators.has(node):
            try:
                self._validators.apply(node, lambda: self._outputs.open(node), self._scratch)
            except DAMAGED as error:
                return OutputState(here="wrong", stored=False, detail=str(error))
        return state


def _no_output(node: Node) -> OutputState:
    return OutputState(here="intact", stored=True, detail=f"it had no output: it was {node.status}")
