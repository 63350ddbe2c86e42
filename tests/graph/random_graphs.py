"""Graphs for property tests: any shape without a cycle, any fields that the model allows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256

from hypothesis import strategies as st

from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node, NodeMetadata, ValidationResult

WHEN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

# Ids with parts, dots and letters beyond ASCII; sorted differently by bytes than by eye.
_ID_PART = st.text("abzAZ09._-é名", min_size=1, max_size=4).filter(lambda part: part not in (".", ".."))
IDS = st.lists(_ID_PART, min_size=1, max_size=2).map("/".join)
HASHES = st.integers(0, 30).map(lambda number: content(str(number)))
_TEXT = st.text(max_size=20)
_LISTS = st.lists(HASHES, max_size=3).map(tuple)
_ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-7))])
_MOMENTS = st.builds(
    lambda zone, later: WHEN.astimezone(zone) + later, _ZONES, st.timedeltas(timedelta(-9999), timedelta(9999))
)


def content(text: str) -> str:
    """The id of a value."""
    return "sha256:" + sha256(text.encode()).hexdigest()


@st.composite
def metadata(draw: st.DrawFn, *, sizes: bool = True) -> NodeMetadata:
    checked = st.builds(
        ValidationResult,
        valid=st.booleans(),
        errors=st.lists(_TEXT, max_size=2).map(tuple),
        checked_at=st.none() | _MOMENTS,
    )
    return NodeMetadata(
        agent_role=draw(_TEXT),
        capability=draw(_TEXT),
        input_hashes=draw(_LISTS),
        output_hashes=draw(_LISTS),
        computation_time=draw(st.floats(0, 1e300)),
        memory_usage=draw(st.integers(0, 2**63 - 1)),
        validation_result=draw(st.none() | checked),
        design_intent=draw(_TEXT),
        command=draw(st.lists(_TEXT, max_size=2).map(tuple)),
        deterministic=draw(st.booleans()),
        size=draw(st.none() | st.integers(0, 2**63 - 1)) if sizes else None,
    )


@st.composite
def graphs(draw: st.DrawFn, *, full: bool = True, sizes: bool = True) -> MetadataGraph:
    """A graph without cycles, its nodes in any order; `full` ones have metadata and nodes of other graphs."""
    ids = draw(st.lists(IDS, max_size=12, unique=True))
    nodes = []
    for at, name in enumerate(ids):
        before = draw(st.lists(st.sampled_from(ids[:at]), max_size=4, unique=True)) if at else []
        foreign = draw(st.sampled_from([(), ("graph:other#n1",), ("graph:a.b#x/y", "graph:other#n1")])) if full else ()
        nodes.append(
            Node(
                id=name,
                hash=draw(HASHES),
                deps=draw(st.permutations((*before, *foreign)).map(tuple)),
                status=draw(st.sampled_from(("pending", "computing", "completed", "failed"))),
                agent_id=draw(_TEXT),
                metadata=draw(metadata(sizes=sizes)) if full else NodeMetadata(),
            )
        )
    graph = MetadataGraph("some", "2", timestamp=draw(_MOMENTS), consensus=draw(st.booleans()), validated_by=("v0",))
    for node in draw(st.permutations(nodes)):
        graph.add(node)
    return graph
