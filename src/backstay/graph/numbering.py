"""Nodes by number: what each depends on, in flat arrays instead of an object for each, so that large graphs stay small.

The loops over all edges are calls of the interpreter's own functions where that is possible: each of these lines is
passed some million times for a large graph.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, count, repeat
from operator import gt, lt, sub
from typing import TypeAlias

Deps: TypeAlias = Mapping[str, Collection[str]]


class Links:
    """For each number others, as in a list of lists."""

    __slots__ = ("_starts", "_targets")

    def __init__(self, lengths: Iterable[int], targets: Iterable[int]) -> None:
        self._starts = array("I", accumulate(lengths, initial=0))
        self._targets = array("I", targets)

    def __getitem__(self, number: int) -> Sequence[int]:
        return self._targets[self._starts[number] : self._starts[number + 1]]

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __iter__(self) -> Iterator[Sequence[int]]:
        return map(self.__getitem__, range(len(self)))

    @property
    def lengths(self) -> Iterator[int]:
        """How many others each has."""
        return map(sub, self._starts[1:], self._starts)

    @property
    def ascend(self) -> bool:
        """Whether each leads only to such as come before it."""
        return all(map(gt, _sources(self.lengths), self._targets))

    def arranged(self, order: Sequence[int]) -> Links:
        """The same with other numbers: `order` has the old ones as they are to follow each other."""
        places = array("I", bytes(4 * len(order)))
        for place, number in enumerate(order):
            places[number] = place
        lengths = array("I", self.lengths)
        return Links(
            map(lengths.__getitem__, order), map(places.__getitem__, chain.from_iterable(map(self.__getitem__, order)))
        )

    def reversed(self) -> Links:
        """The numbers that lead to each, in order."""
        targets = self._targets
        lengths = [0] * len(self)
        for target in targets:
            lengths[target] += 1
        places = list(accumulate(lengths, initial=0))
        sources = array("I", bytes(4 * len(targets)))
        for number, target in zip(_sources(self.lengths), targets, strict=False):
            sources[places[target]] = number
            places[target] += 1
        return Links(lengths, sources)


def numbered(deps: Deps) -> Links:
    """What the nodes depend on, each by its place in the mapping. Raises KeyError for what is not in it."""
    places = dict(zip(deps, range(len(deps)), strict=True))
    return Links(map(len, deps.values()), map(places.__getitem__, chain.from_iterable(deps.values())))


def generations(links: Links, keys: Sequence[str]) -> Iterator[list[int]]:
    """The numbers that lead nowhere, then those that lead to these alone, and so on, each list in the order of `keys`.

    What stands in a cycle, or leads to one, never comes.
    """
    waiting = list(links.lengths)
    dependants = links.reversed()
    is_sorted = all(map(lt, keys, keys[1:]))
    ready = [number for number, count in enumerate(waiting) if not count]
    while ready:
        if is_sorted:
            ready.sort()
        else:
            ready.sort(key=keys.__getitem__)
        yield ready
        freed = []
        for number in ready:
            for other in dependants[number]:
                left = waiting[other] = waiting[other] - 1
                if not left:
                    freed.append(other)
        ready = freed


def _sources(lengths: Iterable[int]) -> Iterator[int]:
    """For each edge the number that it leads from."""
    return chain.from_iterable(map(repeat, count(), lengths))
