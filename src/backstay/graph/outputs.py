"""Where the outputs of nodes live, so that a restore can look at them, bring them back, and put new ones there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from backstay.errors import BackstayError, CorruptedBackup, NotFound, OutputMismatch
from backstay.graph.model import Node
from backstay.graph.produced import Produced
from backstay.graph.values import Values, checked

Here: TypeAlias = Literal["intact", "unchecked", "missing", "wrong"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputState:
    """What a look at a node's output found: where it should be used from, and in the repository.

    `here` is `unchecked` where it is there but was not read; `stored` says that the repository has it. `further` names
    an output
    beside the first that is lost: a recomputation gives only the first. An `outdated` one has inputs that have changed.
    """

    here: Here
    stored: bool
    detail: str = ""
    further: str = ""
    outdated: bool = False

    @property
    def usable(self) -> bool:
        """Whether it can be used as it is."""
        return self.here in ("intact", "unchecked")


_INTACT: Final = OutputState(here="intact", stored=True)
_UNCHECKED: Final = OutputState(here="unchecked", stored=True)


class Outputs(Protocol):
    """A place of outputs. All but `begin`, `commit` and `rollback` is called from several threads."""

    @property
    def values(self) -> Values:
        """The repository's values."""
        ...

    def begin(self, *, keep_history: bool, most: int | None, ttl_days: float | None) -> None:
        """Get ready to be changed; what a crash left is finished or undone first. Raises OutputsBusy."""
        ...

    def look(self, nodes: Sequence[Node], *, read: bool) -> list[OutputState]:
        """How the outputs of completed nodes are, of each in its turn; `read` checks all their bytes."""
        ...

    def open(self, node: Node) -> Iterator[bytes]:
        """The bytes of an output, from wherever they are good.

        Raises NotFound, CorruptedBackup, OutputMismatch (at the end), OSError.
        """
        ...

    def restore(self, node: Node) -> None:
        """Bring an output back from the repository, or into it; raises like `open`. Nothing counts before `commit`."""
        ...

    def take(self, node: Node, produced: Produced) -> None:
        """Put an output that was made again where it belongs; the repository gets it otherwise."""
        ...

    def commit(self) -> None:
        """All is well: what was put here counts from now on. Raises RestoreFailed, and then nothing does."""
        ...

    def rollback(self) -> None:
        """Leave everything as it was at the beginning."""
        ...


class StoredOutputs:
    """Outputs are used from the repository itself: what is lost there must be made again.

    Values are never replaced, since their names are what they are, so that nothing needs to be undone.
    """

    def __init__(self, values: Values) -> None:
        self._values = values

    @property
    def values(self) -> Values:
        return self._values

    def begin(self, *, keep_history: bool, most: int | None, ttl_days: float | None) -> None:
        """Nothing is staged."""

    def look(self, nodes: Sequence[Node], *, read: bool) -> list[OutputState]:
        return stored_states(self._values, nodes, read=read)

    def open(self, node: Node) -> Iterator[bytes]:
        return value_of(self._values, node)

    def restore(self, node: Node) -> None:
        for key in node.values:
            if problem := read_through(self._values, key, node):
                raise OutputMismatch(f"the output of {node.id} cannot be read from the repository", cause=problem)

    def take(self, node: Node, produced: Produced) -> None:
        """The repository gets it, and nobody else."""

    def commit(self) -> None:
        """What was stored counts already."""

    def rollback(self) -> None:
        """What was stored is as good as before: it has its name from its bytes."""


def stored_states(values: Values, nodes: Sequence[Node], *, read: bool, packs: bool = False) -> list[OutputState]:
    """How the outputs of nodes are in the repository, which is asked once which of them it has.

    With `packs` it looks whether the store still has what they lie in, which `read` finds out by itself.
    """
    keys = [key for node in nodes for key in node.values]
    missing = set(values.unavailable(keys) if packs else values.missing(keys))
    return [_stored_state(values, node, missing, read=read) for node in nodes]


def _stored_state(values: Values, node: Node, missing: set[str], *, read: bool) -> OutputState:
    problems: dict[str, str] = {}
    for key in node.values:
        if key in missing:
            problems[key] = f"the repository cannot give the value {key}"
        elif read and (problem := read_through(values, key, node)):
            problems[key] = problem
    if not problems:
        return _INTACT if read else _UNCHECKED
    return OutputState(
        here="missing" if missing.intersection(problems) else "wrong",
        stored=False,
        detail=next(iter(problems.values())),
        further=next((key for key in problems if key != node.hash), ""),
    )


def value_of(values: Values, node: Node) -> Iterator[bytes]:
    """The output of a node from the repository, checked as it comes."""
    assert node.hash is not None
    return checked(values.open(node.hash), node.hash, f"the stored output of {node.id}")


def read_through(values: Values, key: str, node: Node) -> str:
    """Read a value to its end; why it is not good, or nothing."""
    size = 0
    try:
        for piece in checked(values.open(key), key, f"the value {key}"):
            size += len(piece)
    except (NotFound, CorruptedBackup, OutputMismatch) as error:
        return str(error)
    return wrong_size(node, size) if key == node.hash else ""


def wrong_size(node: Node, size: int) -> str:
    """Why a size is not that of a node's output, or nothing."""
    recorded = node.metadata.size
    return "" if recorded is None or recorded == size else f"it has {size} bytes, but {recorded} were recorded"


def require_size(node: Node, produced: Produced) -> None:
    """Raise OutputMismatch for an output whose size is not the recorded one."""
    if problem := wrong_size(node, produced.size):
        raise OutputMismatch(f"the output of {node.id} lies about its size", cause=problem)


DAMAGED: tuple[type[BackstayError], ...] = (NotFound, CorruptedBackup, OutputMismatch)
