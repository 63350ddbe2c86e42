"""What a restore of a graph did with each node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from backstay.graph.model import Node

Outcome: TypeAlias = Literal["reused", "restored", "recomputed", "failed", "blocked"]


class NodeResult(NamedTuple):
    """What became of one node. `hash` is that of its output now, `duration` in seconds, `blame` whose fault it was."""

    id: str
    action: Outcome
    reason: str
    hash: str | None
    duration: float = 0.0
    blame: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """Every node that was looked after. `ok` if none failed or was blocked; else all files are as they were before.

    `changed` are the nodes as they are now whose output or inputs are others than recorded, by id; `stale` those that
    the restore left alone, though what they were made from has changed.
    """

    ok: bool
    nodes: tuple[NodeResult, ...]
    changed: Mapping[str, Node]
    stale: tuple[str, ...] = ()

    @property
    def counts(self) -> Mapping[str, int]:
        """How many nodes there are for each outcome."""
        return Counter(node.action for node in self.nodes)

    @property
    def problems(self) -> tuple[NodeResult, ...]:
        """The nodes that are not well."""
        return tuple(node for node in self.nodes if node.action in ("failed", "blocked"))

    def __str__(self) -> str:
        told = ", ".join(f"{count} {action}" for action, count in sorted(self.counts.items()))
        first = "".join(f"; {node.id} {node.action}: {node.reason}" for node in self.problems[:3])
        return f"{told or 'nothing to do'}{first}"
