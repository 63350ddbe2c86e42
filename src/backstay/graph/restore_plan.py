"""What a restore will do with each node and why: decided before anything is touched, in linear time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from backstay.core.memory import collector_at_rest
from backstay.graph.model import Node
from backstay.graph.outputs import OutputState
from backstay.graph.policy import RegenerationPolicy
from backstay.graph.recorded_inputs import unmet
from backstay.graph.scope import Scope

ONLY_FIRST: Final = "a recomputation gives only the first of its outputs, and the others would stay as they were"
Action: TypeAlias = Literal["reuse", "restore", "recompute", "blocked"]
States: TypeAlias = Callable[[int], OutputState]
WhyNot: TypeAlias = Callable[[int], str]  # why a node cannot be recomputed; empty if it can


class PlannedNode(NamedTuple):
    """One line of a plan.

    `may_change`: it will be recomputed instead, if something that it was made from comes back different. `free`: a
    recomputation may give another output than the recorded one, whatever its
    inputs are. `blame` is the node for whose sake it is blocked.
    """

    id: str
    action: Action
    reason: str
    hash: str | None
    may_change: bool = False
    free: bool = False
    blame: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """Every node that is looked after, each after those that it depends on; others are left alone.

    `numbers` are those of the nodes in the scope that was planned for.
    """

    strategy: str
    nodes: tuple[PlannedNode, ...]
    numbers: Sequence[int] = field(default=(), repr=False, compare=False)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many nodes there are for each action."""
        return Counter(node.action for node in self.nodes)

    @property
    def possible(self) -> bool:
        """Whether no node is blocked."""
        return all(node.action != "blocked" for node in self.nodes)


def plan_restore(
    scope: Scope, states: States, policy: RegenerationPolicy, why_not: WhyNot, *, graph: str = "default"
) -> RestorePlan:
    """Decide; only `states` looks at anything. Raises UnknownNode for a node named in the policy."""
    planning = _Planning(scope, states, policy, why_not)
    if policy.strategy == "selective":
        wanted: Sequence[int] = tuple(scope.number(name, graph=graph) for name in policy.nodes)
    else:
        wanted = scope.own
    with collector_at_rest():
        planning.want(wanted)
        numbers = sorted(planning.needed)
        return RestorePlan(strategy=policy.strategy, nodes=tuple(map(planning.decide, numbers)), numbers=numbers)


class _Planning:
    """First which nodes are needed, from the wanted ones towards their dependencies; then what becomes of each."""

    def __init__(self, scope: Scope, states: States, policy: RegenerationPolicy, why_not: WhyNot) -> None:
        self._scope, self._states, self._policy, self._why_not = scope, states, policy, why_not
        self.needed: set[int] = set()
        self._stale: dict[int, str] = {}
        self._lost: set[int] = set()  # must be recomputed
        self._changing: set[int] = set()  # may come back different
        self._blamed: dict[int, str] = {}

    def want(self, wanted: Sequence[int]) -> None:
        """Find what is needed to have these nodes. Each node and each edge is passed a few times at most."""
        scope = self._scope
        front = list(reversed(wanted))
        if self._policy.validate_before_restore:
            front += self._find_stale(front)
        while front:
            number = front.pop()
            if number in self.needed:
                continue
            self.needed.add(number)
            lost = self._must_recompute(number)
            if lost:
                front.extend(scope.deps[number])
            inputs_may_change = bool(self._changing) and not self._changing.isdisjoint(scope.deps[number])
            if inputs_may_change or (lost and self._is_free(number)):
                self._change(number, front)

    def _find_stale(self, wanted: Sequence[int]) -> set[int]:
        """Find which of these, and of all that they are made from, are stale; those, and what is made from them."""
        outdated: set[int] = set()
        for number in self._with_ancestors(wanted):
            node = self._scope.nodes[number]
            if node.status != "completed":
                continue
            if stale := self._staleness(number, node):
                self._stale[number] = stale
                outdated.add(number)
            elif outdated and not outdated.isdisjoint(self._scope.deps[number]):
                outdated.add(number)
        return outdated

    def _with_ancestors(self, wanted: Sequence[int]) -> Sequence[int]:
        """These and all that they are made from, each after its dependencies."""
        found, front = set(wanted), list(wanted)
        if len(found) == len(self._scope.keys):
            return range(len(found))
        while front:
            above = [dep for dep in self._scope.deps[front.pop()] if dep not in found]
            found.update(above)
            front += above
        return sorted(found)

    def _change(self, number: int, front: list[int]) -> None:
        """A node may come back different, and so may what is made from it, as far as that is needed."""
        spreading = [number]
        while spreading:
            number = spreading.pop()
            if number in self._changing:
                continue
            self._changing.add(number)
            front.extend(self._scope.deps[number])
            spreading.extend(other for other in self._scope.dependants[number] if other in self.needed)

    def decide(self, number: int) -> PlannedNode:
        """What becomes of a needed node; to be called for dependencies first."""
        key, node = self._scope.keys[number], self._scope.nodes[number]
        if node.status != "completed":
            self._blamed[number] = key
            return PlannedNode(key, "reuse", f"it had no output when it was recorded: it was {node.status}", node.hash)
        may_change = bool(self._changing) and not self._changing.isdisjoint(self._scope.deps[number])
        if number in self._lost:
            return self._recompute(number, key, node, may_change)
        state = self._states(number)
        if not state.usable:
            return PlannedNode(
                key, "restore", state.detail or "its output is not there", node.hash, may_change, may_change
            )
        if not state.stored:
            return PlannedNode(key, "restore", "the repository has lost it", node.hash, may_change)
        if self._policy.strategy == "full":
            return PlannedNode(key, "restore", "everything is restored anew", node.hash, may_change)
        why = "its output is as recorded" if state.here == "intact" else "its output is there"
        if may_change:
            why += "; recomputed if something that it is made from changes"
        return PlannedNode(key, "reuse", why, node.hash, may_change)

    def _recompute(self, number: int, key: str, node: Node, may_change: bool) -> PlannedNode:
        state = self._states(number)
        reason = self._stale.get(number) or state.detail or "its output is lost"
        why_not, blame = self._obstacle(number, key)
        if why_not:
            self._blamed[number] = blame
            return PlannedNode(key, "blocked", f"{reason}; {why_not}", node.hash, blame=blame)
        return PlannedNode(key, "recompute", reason, node.hash, may_change, self._is_free(number))

    def _obstacle(self, number: int, key: str) -> tuple[str, str]:
        """Why a node cannot be recomputed, and which node is to blame."""
        if state_further := self._states(number).further:
            return f"its further output {state_further} is lost, and a recomputation gives only the first", key
        if self._is_free(number) and len(self._scope.nodes[number].values) > 1:
            return ONLY_FIRST, key
        if why := self._why_not(number):
            return why, key
        if absent := self._scope.absent.get(number):
            return absent.why, absent.dep
        for dep in self._scope.deps[number]:
            if blame := self._blamed.get(dep):
                return f"it is made from {self._scope.keys[dep]}, which cannot be had", blame
        return "", ""

    def _must_recompute(self, number: int) -> bool:
        node = self._scope.nodes[number]
        if node.status != "completed":
            return False
        if number in self._stale:
            self._lost.add(number)
            return True
        state = self._states(number)
        if state.usable or state.stored:
            return False
        self._lost.add(number)
        return True

    def _staleness(self, number: int, node: Node) -> str:
        """Which dependency a node was not made from as it is now; empty where no inputs are recorded."""
        inputs = node.metadata.input_hashes
        if not inputs:
            return ""
        deps = self._scope.deps[number]
        made_from = [self._scope.nodes[dep] for dep in deps]
        if inputs == tuple([dep.hash for dep in made_from]):  # as with most
            return ""
        at = unmet(inputs, made_from)
        return "" if at is None else f"it was made from another version of {self._scope.keys[deps[at]]}"

    def _is_free(self, number: int) -> bool:
        return (
            number in self._stale
            or not self._scope.nodes[number].metadata.deterministic
            or self._states(number).outdated
        )
