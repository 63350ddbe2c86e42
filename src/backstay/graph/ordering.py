"""In which order the nodes of a graph can be made: each after all that it depends on, in linear time.

Everything here takes a mapping from ids to the ids that each depends on, all of which are in the mapping. Nothing
recurses: a chain of a million nodes is as good as any other graph.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TypeAlias

from backstay.core.memory import collector_at_rest
from backstay.errors import CycleFound

Deps: TypeAlias = Mapping[str, Collection[str]]


class ReadySet:
    """Which nodes can be made now, while others are being made.

    `take` gives what became ready since it was last called, `done` says that a node was made. In a cycle no node is
    ever ready: ask `order` or `find_cycle` first.
    """

    def __init__(self, deps: Deps) -> None:
        self._waiting = {node: len(needs) for node, needs in deps.items()}
        self._dependants = dependants(deps)
        self._ready = [node for node, count in self._waiting.items() if not count]
        self._left = len(self._waiting)

    def take(self) -> list[str]:
        """What became ready since the last call, by id."""
        ready, self._ready = self._ready, []
        ready.sort()
        return ready

    def done(self, node: str) -> None:
        """A node that was taken is made."""
        self._left -= 1
        waiting = self._waiting
        for dependant in self._dependants.get(node, ()):
            waiting[dependant] -= 1
            if not waiting[dependant]:
                self._ready.append(dependant)

    def __len__(self) -> int:
        """How many nodes are not done yet."""
        return self._left


def dependants(deps: Deps) -> dict[str, list[str]]:
    """For each node that others depend on, which ones."""
    found: dict[str, list[str]] = {}
    for node, needs in deps.items():
        for need in needs:
            if need in found:
                found[need].append(node)
            else:
                found[need] = [node]
    return found


def generations(deps: Deps) -> Iterator[list[str]]:
    """Nodes that depend on nothing, then those that depend on these alone, and so on, each list by id.

    Raises CycleFound after the last generation that there is.
    """
    ready = ReadySet(deps)
    while generation := ready.take():
        yield generation
        for node in generation:
            ready.done(node)
    if ready:
        raise CycleFound(find_cycle(deps))


def order(deps: Deps) -> list[str]:
    """All nodes, each after those that it depends on, the same for the same graph; raises CycleFound."""
    with collector_at_rest():
        return [node for generation in generations(deps) for node in generation]


def find_cycle(deps: Deps) -> tuple[str, ...]:
    """A cycle `a, b, c` in which each depends on the next and the last on the first; empty if there is none.

    It begins with the least of its ids.
    """
    left = _never_ready(deps)
    if not left:
        return ()
    # Each of these depends on another of them, so that a walk along the dependencies must come by some node twice.
    walk: dict[str, int] = {}
    node = min(left)
    while node not in walk:
        walk[node] = len(walk)
        node = next(need for need in deps[node] if need in left)
    cycle = list(walk)[walk[node] :]
    least = cycle.index(min(cycle))
    return (*cycle[least:], *cycle[:least])


def reachable(links: Mapping[str, Iterable[str]], start: Iterable[str]) -> set[str]:
    """`start` and everything that links lead to from there: with dependencies what is needed, with dependants
    what is affected."""
    found = set(start)
    front = list(found)
    while front:
        for node in links.get(front.pop(), ()):
            if node not in found:
                found.add(node)
                front.append(node)
    return found


def _is_ordered(deps: Deps) -> bool:
    """Whether each node stands behind all that it depends on, as in most graphs: then nothing need be worked out."""
    before: set[str] = set()
    for node, needs in deps.items():
        if not before.issuperset(needs):
            return False
        before.add(node)
    return True


def _never_ready(deps: Deps) -> set[str]:
    """The nodes of all cycles and what depends on them."""
    if _is_ordered(deps):
        return set()
    waiting = {node: len(needs) for node, needs in deps.items()}
    linked = dependants(deps)
    ready = [node for node, count in waiting.items() if not count]
    made = 0
    while ready:
        made += 1
        for node in linked.get(ready.pop(), ()):
            left = waiting[node] = waiting[node] - 1
            if not left:
                ready.append(node)
    return set() if made == len(waiting) else {node for node, count in waiting.items() if count}
