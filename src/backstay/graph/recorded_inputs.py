"""What a node says that it was made from, beside the outputs that its dependencies have now."""

from __future__ import annotations

from collections.abc import Sequence

from backstay.graph.model import Node


def unmet(recorded: Sequence[str], deps: Sequence[Node]) -> int | None:
    """The place of the first dependency of which no output is among the recorded inputs; None if all have one.

    Where there are as many inputs as dependencies with an output, each stands for the one at its place. Elsewhere
    their order says nothing, but each stands for one dependency only: what is left over came from outside.
    """
    having = [at for at, dep in enumerate(deps) if dep.hash is not None]
    if len(having) == len(recorded):
        for at, key in zip(having, recorded, strict=True):
            if key != deps[at].hash and key not in deps[at].values:
                return at
        return None
    assignment = _Assignment(recorded)
    return next((at for at in having if not assignment.take(at, deps)), None)


class _Assignment:
    """Which dependency each recorded input stands for; one that is taken is given up for another that does as well."""

    def __init__(self, recorded: Sequence[str]) -> None:
        self._places: dict[str, list[int]] = {}
        for place, key in enumerate(recorded):
            self._places.setdefault(key, []).append(place)
        self._taken: dict[int, int] = {}  # place: dependency
        self._held: dict[int, int] = {}  # dependency: place

    def take(self, at: int, deps: Sequence[Node]) -> bool:
        """Find a place for one more dependency, by an augmenting path (Kuhn's algorithm); whether there is one."""
        wanted_by: dict[int, int] = {}
        waiting = [at]
        while waiting:
            dep = waiting.pop()
            for key in {deps[dep].hash, *deps[dep].values}:
                for place in self._places.get(key or "", ()):
                    if place in wanted_by:
                        continue
                    wanted_by[place] = dep
                    if place not in self._taken:
                        self._settle(place, wanted_by, at)
                        return True
                    waiting.append(self._taken[place])
        return False

    def _settle(self, free: int, wanted_by: dict[int, int], at: int) -> None:
        place = free
        while True:
            dep = wanted_by[place]
            before = self._held.get(dep)
            self._taken[place], self._held[dep] = dep, place
            if dep == at:
                return
            assert before is not None
            place = before


def taken_beyond_first(recorded: Sequence[str], deps: Sequence[Node]) -> int | None:
    """The place of the first dependency of which another output than the first is a recorded input."""
    firsts = {dep.hash for dep in deps}
    for at, dep in enumerate(deps):
        if len(dep.values) > 1 and not set(dep.values).difference(firsts).isdisjoint(recorded):
            return at
    return None
