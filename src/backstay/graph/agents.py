"""The life of an agent that works on a graph: a snapshot when it begins, at its milestones, and when it ends, also by
an exception."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

from backstay.core.arguments import checks_arguments
from backstay.errors import InvalidRequest
from backstay.graph.raised import said
from backstay.graph.snapshots import GraphSnapshot

Phase: TypeAlias = Literal["start", "milestone", "exit", "failed"]
TakeSnapshot: TypeAlias = Callable[[str, Sequence[str]], GraphSnapshot]
_MAX_ID: Final = 150  # characters, so that it fits into a tag
_MAX_REASON: Final = 500


@checks_arguments
@dataclass(slots=True)
class Agent:
    """One run of an agent, as a context manager; `snapshots` are those that were made for it, in order.

    Their tags are `agent:ID` and `phase:…`. If the last snapshot cannot be made while an exception ends the run, that
    one goes on, with a note of what failed.
    """

    id: str
    _take: TakeSnapshot
    snapshots: list[GraphSnapshot] = field(default_factory=list)
    _is_running: bool = False

    def __post_init__(self) -> None:
        if not (0 < len(self.id) <= _MAX_ID and self.id.isprintable()):
            raise InvalidRequest(
                f"{self.id[:_MAX_ID]!r} is no id for an agent", cause=f"an id has 1 to {_MAX_ID} printable characters"
            )

    def milestone(self, description: str, tags: Sequence[str] = ()) -> GraphSnapshot:
        """A snapshot on the way. Raises InvalidRequest when the agent does not run, and as `create_snapshot`."""
        if not self._is_running:
            raise InvalidRequest(
                f"agent {self.id} does not run",
                cause="milestones come between its start and its end",
                hint='write `with manager.agent("id") as agent: …`',
            )
        return self._snapshot("milestone", description, tags)

    def _snapshot(self, phase: Phase, description: str, tags: Sequence[str] = ()) -> GraphSnapshot:
        made = self._take(description, (f"agent:{self.id}", f"phase:{phase}", *tags))
        self.snapshots.append(made)
        return made

    def __enter__(self) -> Self:
        if self._is_running:
            raise InvalidRequest(f"agent {self.id} runs already")
        self._snapshot("start", f"agent {self.id} starts")
        self._is_running = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_running = False
        if error is None:
            self._snapshot("exit", f"agent {self.id} ends")
            return
        reason = _printable(f"{type(error).__name__}: {said(error)}")[:_MAX_REASON]
        try:
            self._snapshot("failed", f"agent {self.id} ends by {reason}")
        except Exception as failed:  # noqa: BLE001 - the first error is the one to be raised, and it tells of this one
            error.add_note(f"the last snapshot of agent {self.id} could not be made: {failed}")


def _printable(text: str) -> str:
    """The text with what is no UTF-8, such as of an odd file name, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
