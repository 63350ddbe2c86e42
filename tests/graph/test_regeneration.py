"""Restores of graphs: what is reused, restored and recomputed, and what becomes of nodes that cannot be had."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from backstay.codec.canonical_json import canonical
from backstay.errors import InvalidRequest, UnknownNode
from backstay.graph.inputs import Input
from backstay.graph.model import Node, NodeMetadata, ValidationResult
from backstay.graph.outputs import StoredOutputs
from backstay.graph.policy import RegenerationPolicy
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.repository import Repository
from backstay.testing import MemoryStorage
from tests.graph.worlds import CAPABILITY, World, actions, random_world, result
from tests.operations.copies import SECRET


def test_only_what_is_lost_is_recomputed_and_after_what_it_is_made_from() -> None:
    world = World()
    world.chain("a", "b", "c", "d")
    world.lose("b", "c")
    report = world.restore()
    assert report.ok
    assert world.made == ["b", "c"]
    assert actions(report) == {"a": "reused", "b": "recomputed", "c": "recomputed", "d": "reused"}
    assert world.values.missing(map(world.key, "abcd")) == []
    assert str(report) == "2 recomputed, 2 reused"


def test_a_real_repository_gets_its_values_back() -> None:
    with Repository.create(MemoryStorage(), SECRET) as repository:
        cas = ContentAddressableStorage(repository)
        world = random_world(1, 40)
        cas.store(b"something else")
        with cas.batch() as batch:
            for data in world.values.data.values():
                batch.store(data)
        lost = ["n3", "n17", "n18", "n39"]
        for name in lost:
            cas.delete(world.key(name))
        report = world.restore(StoredOutputs(cas))
        assert report.ok, report
        assert sorted(world.made) == sorted(lost)
        assert all(cas.retrieve(world.key(node.id)) == world.value(node.id) for node in world.graph)


def test_damaged_values_are_found_by_reading_them_before() -> None:
    world = World()
    world.chain("a", "b")
    world.damage("a")
    report = world.restore()
    assert actions(report) == {"a": "recomputed", "b": "reused"}
    assert "its bytes have the id" in result(report, "a").reason


def test_damage_that_was_not_looked_for_is_met_by_a_new_plan() -> None:
    world = World()
    world.chain("a", "b", "c")
    world.lose("c")
    world.damage("a", "b")
    report = world.restore(validate_before_restore=False)
    assert report.ok, report
    assert world.made[-3:] == ["a", "b", "c"]
    assert actions(report) == {"a": "recomputed", "b": "recomputed", "c": "recomputed"}


def test_a_full_restore_reads_everything() -> None:
    world = World()
    world.chain("a", "b", "c")
    world.lose("b")
    report = world.restore(strategy="full", validate_before_restore=False)
    assert actions(report) == {"a": "restored", "b": "recomputed", "c": "restored"}


def test_a_full_restore_recomputes_what_it_cannot_read() -> None:
    world = World()
    world.chain("a", "b", "c")
    world.damage("b")
    report = world.restore(strategy="full", validate_before_restore=False)
    assert actions(report) == {"a": "restored", "b": "recomputed", "c": "restored"}


def test_a_selective_restore_touches_the_named_nodes_and_what_these_need() -> None:
    world = World()
    world.chain("a", "b", "c")
    world.chain("x", "y")
    world.lose("b", "c", "x", "y")
    report = world.restore(strategy="selective", nodes=["c"])
    assert actions(report) == {"a": "reused", "b": "recomputed", "c": "recomputed"}
    assert world.values.missing(map(world.key, "xy")) != []


def test_a_selective_restore_of_a_good_node_looks_at_nothing_else() -> None:
    world = World()
    world.chain("a", "b", "c")
    world.lose("a", "b")
    assert actions(world.restore(strategy="selective", nodes=["c"])) == {"c": "reused"}
    assert not world.made


@pytest.mark.parametrize(
    "policy",
    [
        {"strategy": "all"},
        {"strategy": "selective"},
        {"nodes": ["a"]},
        {"deadline": 0},
        {"retries": -1},
        {"parallel": 0},
        {"speed": 1},
        {"max_snapshots": 0},
    ],
)
def test_policies_that_make_no_sense_are_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        RegenerationPolicy(**policy)


def test_a_node_that_is_not_there_cannot_be_selected() -> None:
    world = World()
    world.chain("a")
    with pytest.raises(UnknownNode):
        world.restore(strategy="selective", nodes=["ghost"])


# -- validation


def test_a_validator_decides_what_is_valid() -> None:
    world = World()
    world.chain("a", "b")
    verdicts: dict[str, Any] = {"a": True, "b": "too short"}

    @world.validators.validates(CAPABILITY)
    def check(node: Node, value: Input) -> Any:
        assert value.bytes() == world.value(node.id)
        return verdicts[node.id]

    report = world.restore()
    assert actions(report) == {"a": "reused", "b": "failed"}
    assert result(report, "b").reason == "the output of b is not valid: too short"
    for verdict in (None, True, ValidationResult(valid=True)):
        verdicts["b"] = verdict
        assert world.restore().ok
    for verdict in (False, ValidationResult(valid=False, errors=("bad",))):
        verdicts["b"] = verdict
        assert not world.restore().ok
    assert world.restore(validate_before_restore=False).ok


def test_a_schema_is_what_json_must_have() -> None:
    class Metrics(BaseModel):
        score: float

    world = World()
    world.validators.schema("metrics", Metrics)
    world.validators.schema("numbers", list[int])
    given = {"good": ("metrics", {"score": 1.5}), "bad": ("metrics", {"score": "x"}), "list": ("numbers", [1, 2])}
    for name, (capability, value) in given.items():
        world.recomputers.recomputes(capability)(lambda node, _: given[node.id][1])
        key = world.values.store(canonical(value))
        metadata: Any = {"capability": capability}
        world.graph.add(Node(id=name, hash=key, status="completed", metadata=metadata))
    report = world.restore()
    assert actions(report) == {"bad": "failed", "good": "reused", "list": "reused"}
    assert "score" in result(report, "bad").reason


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        (list[int], b"[1, 2]", (b'["1"]', b"[1.0]", b"[true]", b"[1", b"")),
        (float, b"1", (b"NaN", b"Infinity", b'"1"', b"true")),
        (dict[str, int], b'{"a": 1, "b": 1}', (b'{"a": 1, "a": 1}', b'{"a": {"b": 1, "b": 1}}')),
    ],
)
def test_nothing_is_taken_for_what_a_schema_wants(form: Any, good: bytes, bad: tuple[bytes, ...]) -> None:
    for data in (good, *bad):
        world = World()
        world.validators.schema("value", form)
        metadata = NodeMetadata(capability="value")
        world.graph.add(Node(id="a", hash=world.values.store(data), status="completed", metadata=metadata))
        assert world.restore().ok is (data == good), data
