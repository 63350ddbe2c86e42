"""Laws of the order in which nodes are made."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.errors import CycleFound
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.numbering import numbered
from backstay.graph.ordering import ReadySet, dependants, find_cycle, generations, knots, order, reachable
from tests.graph.random_graphs import graphs

pytestmark = pytest.mark.property

# Any directed graph, mostly with cycles.
_TANGLES = st.integers(1, 8).flatmap(
    lambda count: st.lists(
        st.lists(st.integers(0, count - 1), max_size=3, unique=True), min_size=count, max_size=count
    ).map(lambda rows: {str(at): [str(need) for need in needs] for at, needs in enumerate(rows)})
)


@given(graphs(full=False))
@settings(max_examples=40, deadline=None)
def test_each_node_comes_after_all_that_it_depends_on(graph: MetadataGraph) -> None:
    ordered = order(graph.deps)
    place = {node: at for at, node in enumerate(ordered)}
    assert sorted(ordered) == sorted(graph.nodes)
    assert all(place[need] < place[node] for node, needs in graph.deps.items() for need in needs)


@given(graphs(full=False))
@settings(max_examples=30, deadline=None)
def test_the_order_does_not_hang_on_how_the_graph_was_built(graph: MetadataGraph) -> None:
    again = MetadataGraph.of(graph.head, sorted(graph, key=lambda node: node.id))
    assert order(again.deps) == order(graph.deps)


@given(graphs(full=False), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_whatever_finishes_first_every_node_becomes_ready_once_and_in_time(
    graph: MetadataGraph, random: Random
) -> None:
    ready = ReadySet(graph.deps)
    running: list[str] = []
    done: set[str] = set()
    while ready:
        running += ready.take()
        assert running
        node = running.pop(random.randrange(len(running)))
        assert done.issuperset(graph.deps[node])
        assert node not in done
        done.add(node)
        ready.done(node)
    assert done == set(graph.nodes)
    assert ready.take() == []


@given(_TANGLES)
@settings(max_examples=150, deadline=None)
def test_a_cycle_that_is_told_is_one_and_none_is_told_where_there_is_none(deps: dict[str, list[str]]) -> None:
    cycle = find_cycle(deps)
    if cycle:
        assert all(after in deps[node] for node, after in zip(cycle, (*cycle[1:], cycle[0]), strict=True))
        assert len(set(cycle)) == len(cycle)
        assert cycle[0] == min(cycle)
        with pytest.raises(CycleFound) as caught:
            order(deps)
        assert caught.value.cycle == cycle
    else:
        assert sorted(order(deps)) == sorted(deps)


@given(_TANGLES)
@settings(max_examples=150, deadline=None)
def test_knots_are_what_leads_to_each_other(deps: dict[str, list[str]]) -> None:
    found = list(knots(deps))
    tied = {node for node in deps if any(node in reachable(deps, [need]) for need in deps[node])}
    assert sorted(node for knot in found for node in knot) == sorted(tied)
    for knot in found:
        for node in knot:
            back = {other for other in tied if node in reachable(deps, deps[other])}
            assert knot == back & reachable(deps, deps[node])


@given(_TANGLES, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_flat_links_are_what_lists_of_lists_would_be(deps: dict[str, list[str]], random: Random) -> None:
    keys, links = list(deps), numbered(deps)
    rows = [[keys.index(need) for need in needs] for needs in deps.values()]
    assert [list(row) for row in links] == rows
    assert links.ascend == all(need < number for number, row in enumerate(rows) for need in row)
    back = [[number for number, row in enumerate(rows) if target in row] for target in range(len(rows))]
    assert [list(row) for row in links.reversed()] == back
    numbers = random.sample(range(len(rows)), len(rows))
    moved = links.arranged(numbers)
    assert [[numbers[need] for need in row] for row in moved] == [rows[number] for number in numbers]


@given(_TANGLES, st.sampled_from("0123"))
@settings(max_examples=40, deadline=None)
def test_what_is_reachable_along_dependencies_reaches_back_along_dependants(
    deps: dict[str, list[str]], start: str
) -> None:
    start = start if start in deps else "0"
    back = dependants(deps)
    needed = reachable(deps, [start])
    assert needed == {node for node in deps if start in reachable(back, [node])}


def test_generations_are_as_early_as_they_can_be() -> None:
    deps = {"d": ["b", "c"], "c": ["a"], "b": [], "a": [], "e": ["d"]}
    assert list(generations(deps)) == [["a", "b"], ["c"], ["d"], ["e"]]


class _Counted(list[str]):
    """Dependencies that count how many of them are looked at."""

    looked = 0

    def __iter__(self) -> Iterator[str]:
        for need in super().__iter__():
            _Counted.looked += 1
            yield need


def test_a_long_chain_needs_no_deep_stack_and_linear_work() -> None:
    deps = {f"n{i}": _Counted([f"n{i - 1}"] if i else []) for i in range(50_000)}
    _Counted.looked = 0
    assert len(order(deps)) == 50_000
    assert find_cycle(deps) == ()
    assert len(reachable(deps, ["n49999"])) == 50_000
    assert _Counted.looked == 3 * 49_999
