"""What a node says that it was made from, beside the outputs that its dependencies have now."""

from __future__ import annotations

from collections import Counter
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
    left = Counter(recorded)
    by_further_outputs = []
    for at in having:
        key = deps[at].hash or ""
        if left[key]:
            left[key] -= 1
        else:
            by_further_outputs.append(at)
    for at in by_further_outputs:
        found = next((key for key in deps[at].values if left[key]), None)
        if found is None:
            return at
        left[found] -= 1
    return None


def taken_beyond_first(recorded: Sequence[str], deps: Sequence[Node]) -> int | None:
    """The place of the first dependency of which another output than the first is a recorded input."""
    firsts = {dep.hash for dep in deps}
    for at, dep in enumerate(deps):
        if len(dep.values) > 1 and not set(dep.values).difference(firsts).isdisjoint(recorded):
            return at
    return None
