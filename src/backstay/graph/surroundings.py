"""What all passes of one restore of a graph have in common: what it works with, and what came out so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from backstay.core.clock import Clock
from backstay.core.events import EventSink
from backstay.graph.executors import Executor
from backstay.graph.model import Node
from backstay.graph.outputs import Outputs
from backstay.graph.policy import RegenerationPolicy
from backstay.graph.recompute import Recomputers
from backstay.graph.recorded_inputs import taken_beyond_first
from backstay.graph.restore_report import NodeResult
from backstay.graph.scope import Scope
from backstay.graph.survey import Survey
from backstay.graph.validation import Validators
from backstay.graph.ways import Way


@dataclass(kw_only=True)
class Surroundings:
    """Nodes go by their numbers in the scope. `results` has None for those of which nothing can be said; `changed` are
    nodes as they are now that are not as recorded; `failed` says why a node cannot be had, and whose fault it is."""

    scope: Scope
    survey: Survey
    outputs: Outputs
    policy: RegenerationPolicy
    recomputers: Recomputers
    validators: Validators
    executor: Executor
    scratch: Path
    clock: Clock
    events: EventSink
    results: list[NodeResult | None] = field(init=False)
    changed: dict[int, Node] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)  # ids of outputs before and now
    failed: dict[int, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.results = [None] * len(self.scope.keys)

    def way(self, number: int) -> Way | str:
        """How a node can be recomputed, or why not."""
        if number in self.failed:
            return self.failed[number][0]
        node, deps = self.scope.nodes[number], self.scope.deps[number]
        at = taken_beyond_first(node.metadata.input_hashes, [self.scope.nodes[dep] for dep in deps])
        if at is not None:
            return f"it is made from a further output of {self.scope.keys[deps[at]]}, and it would be given the first"
        return self.recomputers.way(node, run_commands=self.policy.run_commands)
