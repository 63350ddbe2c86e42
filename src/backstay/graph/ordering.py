"""In which order the nodes of a graph can be made: each after all that it depends on, in linear time.

Everything here takes a mapping from ids to the ids that each depends on, all of which are in the mapping. Nothing
recurses: a chain of a million nodes is as good as any other graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from backstay.core.memory import collector_at_rest
from backstay.errors import CycleFound
from backstay.graph import numbering
from backstay.graph.numbering import Deps


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
    steps = _steps(deps)
    if steps is not None:
        found: list[list[str]] = [[] for _ in range(max(steps.values(), default=-1) + 1)]
        for node, step in steps.items():
            found[step].append(node)
        for generation in found:
            generation.sort()
            yield generation
        return
    keys = list(deps)
    left = len(keys)
    for numbers in numbering.generations(numbering.numbered(deps), keys):
        left -= len(numbers)
        yield [keys[number] for number in numbers]
    if left:
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


def knots(deps: Deps) -> Iterator[set[str]]:
    """All nodes of cycles, together with those that lead to them and back (Tarjan 1972, without recursion)."""
    left = _never_ready(deps)
    place: dict[str, int] = {}  # in which order they were come to
    least: dict[str, int] = {}  # the first that a node leads back to
    path: list[str] = []
    for start in sorted(left):
        walk = [] if start in place else [(start, iter(deps[start]))]
        while walk:
            node, needs = walk[-1]
            if node not in place:
                place[node] = least[node] = len(place)
                path.append(node)
            need = next((need for need in needs if need in left), None)
            if need is None:
                walk.pop()
                if walk:
                    least[walk[-1][0]] = min(least[walk[-1][0]], least[node])
                if least[node] == place[node]:
                    knot = {path.pop()}
                    while node not in knot:
                        knot.add(path.pop())
                    left -= knot
                    if len(knot) > 1 or node in deps[node]:
                        yield knot
            elif need not in place:
                walk.append((need, iter(deps[need])))
            else:
                least[node] = min(least[node], place[need])


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


def is_ordered(deps: Deps) -> bool:
    """Whether each node stands behind all that it depends on, as where graphs are built: there nothing is missing,
    and no cycle."""
    before: set[str] = set()
    for node, needs in deps.items():
        if not before.issuperset(needs):
            return False
        before.add(node)
    return True


def _steps(deps: Deps) -> dict[str, int] | None:
    """The generation of each node, from the first on, in one pass; None where they do not stand in such an order."""
    steps: dict[str, int] = {}
    step_of = steps.__getitem__
    try:
        for node, needs in deps.items():
            steps[node] = max(map(step_of, needs)) + 1 if needs else 0
    except KeyError:
        return None
    return steps


def _never_ready(deps: Deps) -> set[str]:
    """The nodes of all cycles and what depends on them."""
    if is_ordered(deps):
        return set()
    keys = list(deps)
    left = set(range(len(keys)))
    for generation in numbering.generations(numbering.numbered(deps), keys):
        left.difference_update(generation)
    return {keys[number] for number in left}
