"""What a node may be, and how one is refused that may not."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from typing import Any

import pytest

from backstay.errors import InvalidNode
from backstay.graph.model import Node, NodeMetadata, Ref, ValidationResult

HASH = "sha256:" + "a" * 64


def test_a_node_needs_only_an_id() -> None:
    node = Node(id="a")
    assert (node.hash, node.deps, node.status, node.metadata) == (None, (), "pending", NodeMetadata())


def test_plain_values_become_those_of_the_model() -> None:
    given: dict[str, Any] = {"id": "a", "hash": "a" * 64, "deps": ["b"], "metadata": {"input_hashes": [HASH]}}
    node = Node(**given)
    assert (node.hash, node.deps, node.metadata.input_hashes) == (HASH, ("b",), (HASH,))


def test_names_in_camel_case_are_read_too() -> None:
    given = {"id": "a", "agentId": "g", "traceId": "t", "metadata": {"userRequirement": "R1", "memoryUsage": 3}}
    node = Node.parse(given)
    assert (node.agent_id, node.trace_id, node.metadata.user_requirement) == ("g", "t", "R1")
    assert node.metadata.memory_usage == 3


def test_an_empty_hash_is_none() -> None:
    assert Node.parse({"id": "a", "hash": ""}).hash is None


def test_the_values_of_a_node_are_its_output_first_and_each_once() -> None:
    other = "sha256:" + "b" * 64
    assert Node(id="a", hash=HASH, metadata=NodeMetadata(output_hashes=(other, HASH))).values == (HASH, other)
    assert Node(id="a", metadata=NodeMetadata(output_hashes=(other,))).values == (other,)


def test_a_changed_node_is_checked() -> None:
    node = Node(id="a", agent_id="g")
    assert node.changed(status="completed", hash=HASH) == Node(id="a", agent_id="g", status="completed", hash=HASH)
    with pytest.raises(InvalidNode, match="completed"):
        node.changed(status="completed")


def test_nodes_can_be_sent_to_other_processes_and_hashed() -> None:
    node = Node(id="a", hash=HASH, metadata=NodeMetadata(validation_result=ValidationResult(valid=True)))
    assert pickle.loads(pickle.dumps(node)) == node == copy.deepcopy(node)
    assert hash(pickle.loads(pickle.dumps(node))) == hash(node)


def test_times_are_kept_in_utc() -> None:
    result = ValidationResult.parse({"valid": True, "checked_at": "2026-01-01T00:00:00+02:00"})
    assert result.model_dump(mode="json")["checked_at"] == "2025-12-31T22:00:00Z"


@pytest.mark.parametrize("name", ["a", "train/fold-1", "é", "a b", "...", "a/..b", "x#y", "C:\\x", "n" * 255])
def test_ids_that_are_allowed(name: str) -> None:
    assert Node(id=name, deps=(name, f"graph:other#{name}")).id == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/../b", "a/./b", "/a", "a/", "a//b", " a", "a ", "a\0b", "a\nb", "a\x1b[2J", "a\u202eb",
     "\udc80", "n" * 256, "é" * 128, "graph:a#b"],
)  # fmt: skip
def test_ids_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidNode, match=r"\bid: ") as caught:
        Node(id=name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("path", ["out.csv", "a/b c/d", "..a/b..", "/".join("b" * 2048)])
def test_paths_that_are_allowed(path: str) -> None:
    assert NodeMetadata(path=path).path == path


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "a/../../b", "..", "./a", "a//b", "a/", "a\0b", "a\nb", "a/" + "b" * 256, "/b" * 2049]
)
def test_paths_that_are_refused(path: str) -> None:
    with pytest.raises(InvalidNode, match=r"\bpath: "):
        NodeMetadata(path=path)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("hash", "sha256:" + "a" * 63, "64 lower-case hex digits"),
        ("hash", "sha256:" + "A" * 64, "64 lower-case hex digits"),
        ("hash", "sha256:../../etc/passwd", "64 lower-case hex digits"),
        ("hash", "md5:" + "a" * 64, "64 lower-case hex digits"),
        ("hash", HASH + "\n", "64 lower-case hex digits"),
        ("hash", 7, "string"),
        ("deps", ["a", "b", "a"], "a stands there twice"),
        ("deps", "abc", "tuple"),
        ("deps", ["b", "../x"], "deps: ../x: it must not have"),
        ("deps", ["graph:x"], "graph:NAME#ID"),
        ("deps", ["graph:x/y#z"], "graph:x/y#z: a graph's name"),
        ("deps", ["graph:x#../z"], "as a part"),
        ("deps", [f"n{i}" for i in range(100_001)], "at most 100000 items"),
        ("status", "done", "pending"),
        ("status", "completed", "hash of its output"),
        ("agent_id", "x" * 1025, "at most 1024"),
        ("agentid", "x", "Extra inputs"),
        ("metadata", {"unknown": 1}, "metadata.unknown"),
        ("metadata", {"computation_time": -1.0}, "greater than or equal to 0"),
        ("metadata", {"computation_time": float("nan")}, "finite"),
        ("metadata", {"computation_time": "1"}, "valid number"),
        ("metadata", {"memory_usage": 2**63}, "less than or equal"),
        ("metadata", {"memory_usage": 10**400}, "metadata.memory_usage"),
        ("metadata", {"memory_usage": True}, "integer"),
        ("metadata", {"size": -1}, "greater than or equal to 0"),
        (
            "metadata",
            {"output_hashes": ["x"]},
            "metadata.output_hashes: x: it must be sha256:",
        ),
        ("metadata", {"design_intent": "x" * 65_537}, "65536"),
        ("metadata", {"path": "a/../../b"}, "metadata.path"),
        ("metadata", {"validation_result": {"valid": "yes"}}, "metadata.validation_result.valid"),
        ("metadata", {"validation_result": {"valid": True, "checked_at": "2026-01-01T00:00:00"}}, "timezone"),
    ],
)
def test_fields_that_are_refused(field: str, value: object, told: str) -> None:
    given: dict[str, Any] = {"id": "good/id", field: value}
    with pytest.raises(InvalidNode) as called:
        Node(**given)
    with pytest.raises(InvalidNode) as parsed:
        Node.parse(given)
    for error in (called.value, parsed.value):
        assert told in error.cause
        assert error.title == "node good/id is not valid"
        assert len(str(error)) < 1000


def test_json_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(InvalidNode, match="recursion"):
        Node.parse_json(b'{"id":' + b"[" * 100_000)


def test_a_node_cannot_be_changed_in_place() -> None:
    node = Node(id="a")
    with pytest.raises(ValueError, match="frozen"):
        node.id = "b"


def test_a_reference_to_another_graph_comes_back_from_its_text() -> None:
    ref = Ref("other.graph", "train/fold#1")
    assert Ref.parse(str(ref)) == ref
    assert Ref.parse("train") is None


def test_nodes_of_a_graph_share_the_names_of_their_attributes_however_many_were_made_before() -> None:
    nodes = [Node(id=f"n{number}", metadata=NodeMetadata(capability="expand")) for number in range(500)]
    alone = [node.compacted(metadata=node.metadata.compacted()) for node in nodes]
    assert alone == nodes
    tracemalloc.start()
    try:
        kept = [node.compacted(metadata=node.metadata.compacted()) for node in nodes]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(kept) == 500
    assert taken / 500 < 600  # bytes; far more with dictionaries of their own
