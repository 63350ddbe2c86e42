"""How the outputs of nodes are before a restore: looked at when asked for, many of them in parallel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from backstay.core.pipeline import Workers
from backstay.graph.model import Node
from backstay.graph.outputs import DAMAGED, Outputs, OutputState
from backstay.graph.scope import Scope
from backstay.graph.validation import Validators

_AT_ONCE: Final = 128  # nodes that one thread looks at before it is given more


class Survey:
    """The states of outputs, each looked up once. What is found out later can be entered."""

    def __init__(
        self, scope: Scope, outputs: Outputs, validators: Validators, scratch: Path, *, read: bool, threads: int
    ) -> None:
        self._scope, self._outputs, self._validators = scope, outputs, validators
        self._scratch, self._read, self._threads = scratch, read, threads
        self._states: dict[int, OutputState] = {}

    def __call__(self, number: int) -> OutputState:
        """The state of one node's output."""
        state = self._states.get(number)
        if state is None:
            state = self._states[number] = self._look(self._scope.nodes[number])
        return state

    def look_ahead(self, numbers: Sequence[int]) -> None:
        """Look at many of them now, on several threads."""
        left = (number for number in numbers if number not in self._states)
        if self._threads < 2:
            for number in left:
                self(number)
            return
        groups = iter(lambda: list(islice(left, _AT_ONCE)), [])
        with Workers(self._threads, "look") as workers:
            for found in workers.ordered(self._look_at_all, groups, weigh=len, limit=4 * self._threads * _AT_ONCE):
                self._states.update(found)

    def enter(self, number: int, state: OutputState) -> None:
        """What turned out to be the state."""
        self._states[number] = state

    def _look_at_all(self, numbers: list[int]) -> list[tuple[int, OutputState]]:
        return [(number, self._look(self._scope.nodes[number])) for number in numbers]

    def _look(self, node: Node) -> OutputState:
        if node.status != "completed":
            return OutputState(here="intact", stored=True, detail=f"it had no output: it was {node.status}")
        state = self._outputs.look(node, read=self._read)
        if self._read and state.usable and self._validators.has(node):
            try:
                self._validators.apply(node, lambda: self._open(node), self._scratch)
            except DAMAGED as error:
                return OutputState(here="wrong", stored=False, detail=str(error))
        return state

    def _open(self, node: Node) -> Iterator[bytes]:
        return self._outputs.open(node)
