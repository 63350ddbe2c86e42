"""The life of an agent: snapshots at its start, at milestones, and at its end, however it ends."""

from __future__ import annotations

import pytest

from backstay.errors import InvalidRequest
from backstay.graph.agents import Agent
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node
from tests.graph.stored import Stored, made
from tests.graph.worlds import Speechless


def fail(agent: Agent, graph: MetadataGraph, node: Node) -> None:
    """A run that adds a node and ends by an exception."""
    with agent:
        graph.add(node)
        raise LookupError("lost")


def test_a_run_makes_snapshots_at_its_start_milestones_and_end() -> None:
    stored = Stored()
    graph = stored.graph({"a": b"1"})
    manager = stored.manager(graph)
    with manager.agent("worker-1") as agent:
        graph.add(made("b", stored.values.store(b"2"), "a"))
        shot = agent.milestone("features are there", ["v2"])
    assert {one.id for one in manager.list_snapshots()} == {one.id for one in agent.snapshots}
    assert [one.tags for one in agent.snapshots] == [
        ("agent:worker-1", "phase:start"),
        ("agent:worker-1", "phase:milestone", "v2"),
        ("agent:worker-1", "phase:exit"),
    ]
    assert [one.nodes for one in agent.snapshots] == [1, 2, 2]
    assert shot.description == "features are there"


def test_an_exception_makes_a_snapshot_and_goes_on() -> None:
    stored = Stored()
    graph = stored.graph({"a": b"1"})
    agent = stored.manager(graph).agent("worker")
    with pytest.raises(LookupError, match="lost"):
        fail(agent, graph, Node(id="b", deps=("a",), status="failed"))
    last = agent.snapshots[-1]
    assert last.tags == ("agent:worker", "phase:failed")
    assert "LookupError: lost" in last.description
    assert last.graph["b"].status == "failed"


def test_a_last_snapshot_that_cannot_be_made_hides_no_exception() -> None:
    stored = Stored()
    graph = stored.graph({"a": b"1"})
    agent = stored.manager(graph).agent("worker")
    with pytest.raises(LookupError) as raised:
        fail(agent, graph, Node(id="b", deps=("ghost",)))
    assert "ghost" in raised.value.__notes__[0]
    assert [one.tags[1] for one in agent.snapshots] == ["phase:start"]


@pytest.mark.parametrize("error", [FileNotFoundError("no file caf\udce9"), Speechless()])
def test_an_exception_with_an_odd_message_makes_a_snapshot_too(error: Exception) -> None:
    stored = Stored()
    agent = stored.manager(stored.graph({"a": b"1"})).agent("worker")
    with pytest.raises(type(error)), agent:
        raise error
    assert [one.tags[1] for one in agent.snapshots] == ["phase:start", "phase:failed"]
    assert type(error).__name__ in agent.snapshots[-1].description


def test_milestones_come_while_the_agent_runs() -> None:
    stored = Stored()
    agent = stored.manager(stored.graph({})).agent("worker")
    with pytest.raises(InvalidRequest, match="does not run"):
        agent.milestone("too soon")
    with agent, pytest.raises(InvalidRequest, match="runs already"):
        agent.__enter__()
    with pytest.raises(InvalidRequest, match="does not run"):
        agent.milestone("too late")


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 151])
def test_what_can_be_no_agent_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        Stored().manager().agent(name)
