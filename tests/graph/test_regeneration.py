"""Restores of graphs: what is reused, restored and recomputed, and what becomes of nodes that cannot be had."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from backstay.errors import CorruptedBackup, CycleFound, Interrupted, InvalidRequest, StorageUnavailable, UnknownNode
from backstay.graph.executors import ThreadExecutor
from backstay.graph.inputs import Input, Inputs
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node, ValidationResult
from backstay.graph.outputs import StoredOutputs
from backstay.graph.policy import RegenerationPolicy
from backstay.graph.regeneration import RegenerationOptions, plan_regeneration, regenerate
from backstay.graph.restore_report import with_changes
from backstay.repository.canonical_json import canonical
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.repository import Repository
from backstay.testing import MemoryStorage
from tests.graph.worlds import CAPABILITY, MemoryValues, Speechless, World, actions, key_of, random_world, result
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


# -- what fails


def failing(world: World, name: str, failure: Any) -> None:
    """Let the recomputation of one node do something else first."""

    @world.recomputers.recomputes(CAPABILITY)
    def make(node: Node, inputs: Inputs) -> Any:
        if node.id == name:
            found = failure()
            if found is not None:
                return found
        return world.make(node, inputs)


def diamond() -> World:
    """`top` is made from `left` and `right`, both from `base`; `alone` has nothing to do with them."""
    world = World()
    world.add("base")
    world.add("left", ["base"])
    world.add("right", ["base"])
    world.add("top", ["left", "right"])
    world.add("alone")
    world.lose("base", "left", "right", "top", "alone")
    return world


def explode() -> None:
    raise ZeroDivisionError("no luck")


def leave() -> None:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (explode, "left: its recomputation raised ZeroDivisionError: no luck"),
        (leave, "left: its recomputation raised SystemExit: 3"),
        (lambda: b"other bytes", "the recomputation of left gave another output than the recorded one"),
        (object, "is no output: it is of type object"),
        (lambda: [float("nan")], "is no JSON"),
        (lambda: iter(["text"]), "something else than bytes: it has a piece of type str"),
        (lambda: Path("/does/not/exist"), "cannot be read"),
        (lambda: Path("/"), "cannot be read"),
    ],
)
def test_what_fails_blocks_only_what_is_made_from_it(failure: Any, told: str) -> None:
    world = diamond()
    failing(world, "left", failure)
    report = world.restore()
    assert not report.ok
    assert actions(report) == {
        "base": "recomputed",
        "left": "failed",
        "right": "recomputed",
        "top": "blocked",
        "alone": "recomputed",
    }
    assert told in result(report, "left").reason
    assert result(report, "top").blame == "left"
    assert not world.values.missing([world.key("base"), world.key("right"), world.key("alone")])
    assert key_of(b"other bytes") not in world.values.data


def test_a_function_that_hangs_is_given_up_and_keeps_nobody() -> None:
    world = diamond()
    release = threading.Event()
    failing(world, "left", lambda: release.wait(60) and None)
    begun = time.monotonic()
    report = world.restore(deadline=0.2, executor=ThreadExecutor(1))
    assert time.monotonic() - begun < 10
    release.set()
    assert actions(report)["left"] == "failed"
    assert actions(report)["right"] == "recomputed"
    reason = result(report, "left").reason
    assert "took longer than 0.2 s" in reason
    assert "cannot be stopped" in reason


def test_an_output_without_end_is_not_taken_on_once_its_node_was_given_up() -> None:
    world = World()
    world.chain("a")
    world.lose("a")

    def endless() -> Iterator[bytes]:
        while True:
            time.sleep(0.001)
            yield b"more"

    failing(world, "a", endless)
    report = world.restore(deadline=0.1)
    assert "took longer" in result(report, "a").reason
    for late in [thread for thread in threading.enumerate() if thread.name == "recompute a"]:
        late.join(10)
        assert not late.is_alive()


def speechless(*_: object) -> None:
    raise Speechless


def test_an_error_that_cannot_say_anything_is_told_all_the_same() -> None:
    world = World()
    world.chain("a")
    world.lose("a")
    failing(world, "a", speechless)
    assert "raised Speechless: its message could not be made" in result(world.restore(deadline=20), "a").reason


def test_a_validator_whose_error_cannot_say_anything_is_told_all_the_same() -> None:
    world = World()
    world.chain("a")
    world.lose("a")
    world.validators.validates(CAPABILITY)(speechless)
    assert "Speechless: its message could not be made" in result(world.restore(deadline=20), "a").reason


def test_a_late_result_of_a_function_that_was_given_up_counts_for_nothing() -> None:
    world = World()
    world.chain("a")
    world.lose("a")
    release = threading.Event()
    failing(world, "a", lambda: release.wait(60) and None)
    checked: list[str] = []
    world.validators.validates(CAPABILITY)(lambda node, _: checked.append(node.id))
    report = world.restore(deadline=0.1)
    (late,) = [thread for thread in threading.enumerate() if thread.name == "recompute a"]
    release.set()
    late.join(10)
    assert not report.ok
    assert not checked
    assert world.values.missing([world.key("a")])


def test_another_try_is_made_as_often_as_the_policy_says() -> None:
    world = World()
    world.chain("a", "b")
    world.lose("a")
    tries = iter([True, True, False])
    failing(world, "a", lambda: explode() if next(tries) else None)
    report = world.restore(retries=2)
    assert report.ok, report
    assert "try 2 failed: a: its recomputation raised ZeroDivisionError: no luck" in result(report, "a").reason

    world.lose("a")
    failing(world, "a", explode)
    report = world.restore(retries=1)
    assert "(after 2 tries)" in result(report, "a").reason


def test_wrong_bytes_are_not_tried_again() -> None:
    world = World()
    world.chain("a")
    world.lose("a")
    calls: list[int] = []

    def wrong() -> bytes:
        calls.append(1)
        return b"wrong"

    failing(world, "a", wrong)
    assert not world.restore(retries=5).ok
    assert len(calls) == 1


def test_an_output_that_lies_about_its_size_is_refused() -> None:
    world = World()
    world.add("a", size=3)
    report = world.restore()
    assert "lies about its size" in result(report, "a").reason
    assert actions(report) == {"a": "failed"}


def test_what_nothing_recomputes_is_blocked_and_told() -> None:
    world = World()
    world.add("a", capability="magic")
    world.add("b", ["a"])
    world.add("c", command=("true",), capability="")
    world.add("d", capability="")
    world.lose("a", "b", "c", "d")
    report = world.restore()
    assert actions(report) == dict.fromkeys("abcd", "blocked")
    assert "nothing is registered that recomputes 'magic'" in result(report, "a").reason
    assert result(report, "b").blame == "a"
    assert "run_commands" in result(report, "c").reason
    assert "neither a capability nor a command" in result(report, "d").reason


def test_a_further_output_cannot_be_recomputed() -> None:
    world = World()
    node = world.add("a")
    other = world.values.store(b"other")
    more = node.metadata.model_copy(update={"output_hashes": (node.hash, other)})
    world.graph.replace(node.model_copy(update={"metadata": more}))
    del world.values.data[other]
    report = world.restore()
    assert "gives only the first" in result(report, "a").reason
    assert actions(report) == {"a": "blocked"}


def test_nodes_that_were_not_completed_have_nothing_to_restore() -> None:
    world = World()
    world.chain("a")
    world.graph.add(Node(id="b", deps=("a",), status="pending"))
    metadata: Any = {"capability": CAPABILITY}
    world.graph.add(Node(id="c", deps=("b",), hash=key_of(b"c"), status="completed", metadata=metadata))
    report = world.restore()
    assert "was pending" in result(report, "b").reason
    assert (result(report, "c").action, result(report, "c").blame) == ("blocked", "b")


def test_a_cycle_is_named_and_nothing_waits_for_it() -> None:
    graph = MetadataGraph()
    for name, dep in (("a", "b"), ("b", "c"), ("c", "a")):
        graph.add(Node(id=name, hash=key_of(b""), deps=(dep,), status="completed"))
    with pytest.raises(CycleFound, match="a → b → c → a"):
        regenerate(graph, StoredOutputs(World().values))


def test_a_repository_that_does_not_answer_ends_the_restore() -> None:
    class Away(MemoryValues):
        def store(self, content: Any, metadata: Any = None) -> str:
            raise StorageUnavailable("the store is away")

    world = World()
    world.chain("a")
    values = Away()
    with pytest.raises(StorageUnavailable):
        world.restore(StoredOutputs(values))
    assert threading.active_count() < 20


def test_a_copy_that_stays_damaged_is_told() -> None:
    class Stubborn(MemoryValues):
        """Takes a value that it has for good, as deduplication does."""

        def open(self, key: str) -> Iterator[bytes]:
            raise CorruptedBackup(f"the pack of {key} is damaged")

    world = World()
    world.chain("a")
    values = Stubborn()
    values.data = dict(world.values.data)
    report = world.restore(StoredOutputs(values))
    assert actions(report) == {"a": "failed"}
    assert "backstay repair packs" in result(report, "a").reason


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


# -- what comes back different


def test_a_failure_stays_one_when_a_second_plan_is_made() -> None:
    world = World()
    world.add("bad")
    world.add("on bad", ["bad"])
    world.add("x")
    world.add("on x", ["x"])
    world.lose("bad", "on bad", "on x")
    world.damage("x")
    failing(world, "bad", explode)
    report = world.restore(validate_before_restore=False)
    assert actions(report) == {"bad": "failed", "on bad": "blocked", "x": "recomputed", "on x": "recomputed"}
    assert "ZeroDivisionError" in result(report, "bad").reason
    assert result(report, "on bad").blame == "bad"


def test_what_is_not_deterministic_comes_back_as_a_new_version_and_so_does_what_is_made_from_it() -> None:
    world = World()
    world.add("seed", deterministic=False)
    world.add("mid", ["seed"])
    world.add("top", ["mid", "seed"])
    world.add("apart")
    world.lose("seed")
    world.salts["seed"] = b"another draw"
    before = {node.id: node.hash for node in world.graph}
    report = world.restore()
    assert report.ok, report
    assert actions(report) == {"seed": "recomputed", "mid": "recomputed", "top": "recomputed", "apart": "reused"}
    assert set(report.changed) == {"seed", "mid", "top"}
    assert "new version" in result(report, "seed").reason
    assert result(report, "mid").reason.startswith("something that it was made from has changed")
    after = with_changes(world.graph, report.changed)
    for name in ("seed", "mid", "top"):
        assert after[name].hash == result(report, name).hash != before[name]
        assert after[name].metadata.output_hashes == (after[name].hash,)
    assert set(after["top"].metadata.input_hashes) == {after["mid"].hash, after["seed"].hash}
    assert all(world.values.exists(before[name] or "") for name in ("mid", "top")), "history is preserved"
    world.graph = after
    world.made.clear()
    assert actions(world.restore()) == dict.fromkeys(("seed", "mid", "top", "apart"), "reused")


def test_what_comes_back_the_same_touches_nothing_that_is_made_from_it() -> None:
    world = World()
    world.add("seed", deterministic=False)
    world.add("mid", ["seed"])
    world.lose("seed")
    report = world.restore()
    assert actions(report) == {"seed": "recomputed", "mid": "reused"}
    assert not report.changed


def test_a_selective_restore_says_what_it_left_stale() -> None:
    world = World()
    world.add("seed", deterministic=False)
    world.add("wanted", ["seed"])
    world.add("other", ["seed"])
    world.lose("seed", "wanted")
    world.salts["seed"] = b"another draw"
    report = world.restore(strategy="selective", nodes=["wanted"])
    assert actions(report) == {"seed": "recomputed", "wanted": "recomputed"}
    assert report.stale == ("other",)


def test_changes_spread_to_selected_nodes_in_whatever_order_they_are_named() -> None:
    for names in (["far", "mid", "top"], ["top", "mid", "far"]):
        world = World()
        world.add("seed", deterministic=False)
        world.add("mid", ["seed"])
        world.add("far", ["mid"])
        world.add("top", ["seed"])
        world.lose("seed", "top")
        world.salts["seed"] = b"another draw"
        report = world.restore(strategy="selective", nodes=names)
        assert actions(report) == dict.fromkeys(("seed", "mid", "far", "top"), "recomputed")


def test_a_node_that_was_made_from_another_version_is_stale() -> None:
    world = World()
    world.add("a")
    world.add("b", ["a"], input_hashes=(key_of(b"an older a"),))
    assert world.restore(validate_before_restore=False).ok
    assert not world.made
    report = world.restore()
    assert "made from another version of a" in result(report, "b").reason
    assert actions(report) == {"a": "reused", "b": "recomputed"}
    assert report.changed["b"].metadata.input_hashes == (world.key("a"),)


def test_what_cannot_be_made_anew_from_changed_inputs_is_blocked() -> None:
    world = World()
    world.add("seed", deterministic=False)
    world.add("mid", ["seed"], capability="magic")
    world.lose("seed")
    world.salts["seed"] = b"another draw"
    report = world.restore()
    assert actions(report) == {"seed": "recomputed", "mid": "blocked"}


def test_changes_reach_what_had_to_wait_for_a_second_plan() -> None:
    world = World()
    world.add("seed", deterministic=False, input_hashes=())
    world.add("other", input_hashes=())
    world.add("top", ["seed", "other"], input_hashes=())
    world.lose("seed")
    world.damage("other")  # found when top is made anew
    world.salts["seed"] = b"another draw"
    report = world.restore(validate_before_restore=False)
    assert report.ok, report
    assert actions(report) == dict.fromkeys(("seed", "other", "top"), "recomputed")
    assert report.changed["top"].hash == result(report, "top").hash


# -- other graphs


def test_nodes_of_other_graphs_are_restored_where_they_are_needed() -> None:
    mine, theirs = World(), World()
    theirs.values = mine.values
    theirs.graph = MetadataGraph("theirs")
    theirs.chain("a", "b", "unused")
    theirs.lose("a", "b", "unused")
    b = theirs.graph["b"]
    data = mine.output("c", [b"b\n" + key_of(b"a").removeprefix("sha256:").encode()])
    metadata: Any = {"capability": CAPABILITY}
    mine.graph.add(Node(id="c", hash=key_of(data), deps=("graph:theirs#b",), status="completed", metadata=metadata))
    options = RegenerationOptions(recomputers=mine.recomputers, others={"theirs": theirs.graph})
    report = regenerate(mine.graph, StoredOutputs(mine.values), options)
    assert report.ok, report
    assert [node.id for node in report.nodes] == ["graph:theirs#a", "graph:theirs#b", "c"]
    assert mine.made == ["a", "b", "c"]
    assert mine.values.exists(b.hash or "")

    mine.values.data.pop(key_of(data))
    alone = regenerate(mine.graph, StoredOutputs(mine.values), RegenerationOptions(recomputers=mine.recomputers))
    assert "graph:theirs#b, which is not at hand" in result(alone, "c").reason


def test_a_cycle_through_two_graphs_is_found() -> None:
    one, two = MetadataGraph("one"), MetadataGraph("two")
    one.add(Node(id="a", hash=key_of(b""), deps=("graph:two#b",), status="completed"))
    two.add(Node(id="b", hash=key_of(b""), deps=("graph:one#a",), status="completed"))
    with pytest.raises(CycleFound, match="a → graph:two#b → a"):
        regenerate(one, StoredOutputs(World().values), RegenerationOptions(others={"two": two}))


# -- how much at once


def test_inputs_are_loaded_only_when_they_are_asked_for() -> None:
    world = World()
    world.add("a")
    world.add("b", ["a"])
    world.lose("b")
    world.recomputers.recomputes(CAPABILITY)(lambda _, __: world.output("b", [world.value("a")]))
    world.restore(validate_before_restore=False)
    assert world.values.opened == []


def test_inputs_come_in_every_form(tmp_path: Path) -> None:
    seen: list[Any] = []

    def make(node: Node, inputs: Inputs) -> bytes:
        value = inputs["a"]
        with value.open() as stream:
            seen.extend([value.bytes(), stream.read(), value.path().read_bytes(), list(inputs), len(inputs)])
        return world.output("b", [value.bytes()])

    world = World()
    world.chain("a", "b")
    world.lose("b")
    world.recomputers.recomputes(CAPABILITY)(make)
    assert world.restore().ok
    assert seen == [world.value("a")] * 3 + [["a"], 1]


def test_recorded_memory_bounds_what_runs_at_once() -> None:
    world, lock = World(), threading.Lock()
    at_once: list[int] = []
    now = [0]

    def make(node: Node, inputs: Inputs) -> bytes:
        with lock:
            now[0] += 1
            at_once.append(now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return world.output(node.id, [])

    for at in range(6):
        world.add(f"n{at}", memory_usage=60)
    world.lose(*(f"n{at}" for at in range(6)))
    world.recomputers.recomputes(CAPABILITY)(make)
    assert world.restore(executor=ThreadExecutor(6), memory_limit=130).ok
    assert max(at_once) <= 2
    world.lose(*(f"n{at}" for at in range(6)))
    assert world.restore(executor=ThreadExecutor(6), memory_limit=1).ok, "one at a time, however large"
    assert world.restore(executor="threads:2").ok


def test_many_results_go_in_few_commits() -> None:
    world = random_world(3, 300)
    world.lose(*(node.id for node in world.graph))
    world.values.commits = 0
    assert world.restore().ok
    assert world.values.commits <= 3


def test_large_results_stay_out_of_memory(tmp_path: Path) -> None:
    world = World()
    large = bytes(3 << 20)

    def make(node: Node, inputs: Inputs) -> Any:
        if node.id == "a":
            return iter([large[: 1 << 20]] * 3)
        assert inputs["a"].bytes() == large
        return inputs["a"].path()

    key = world.values.store(large)
    for name, deps in (("a", ()), ("b", ("a",))):
        metadata: Any = {"capability": CAPABILITY}
        world.graph.add(Node(id=name, hash=key, deps=deps, status="completed", metadata=metadata))
    world.values.data.clear()
    world.recomputers.recomputes(CAPABILITY)(make)
    assert world.restore().ok
    assert world.values.data == {key: large}


def test_memory_stays_flat_however_large_outputs_are() -> None:
    class Measuring(MemoryValues):
        """Keeps nothing of what it is given, and gives a large value without having it."""

        def store(self, content: Any, metadata: Any = None) -> str:
            assert isinstance(content, Path), "a large result comes as a file"
            with content.open("rb") as file:
                key = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            self.data[key] = b""
            return key

        def open(self, key: str) -> Iterator[bytes]:
            return (bytes(1 << 20) for _ in range(24))

    key = f"sha256:{hashlib.sha256(bytes(24 << 20)).hexdigest()}"
    copied = f"sha256:{hashlib.sha256(bytes(24 << 20) + b'!').hexdigest()}"
    world = World(values=Measuring())
    world.values.data[key] = b""
    metadata: Any = {"capability": CAPABILITY}
    world.graph.add(Node(id="a", hash=key, status="completed", metadata=metadata))
    world.graph.add(Node(id="b", hash=copied, deps=("a",), status="completed", metadata=metadata))

    @world.recomputers.recomputes(CAPABILITY)
    def copy(node: Node, inputs: Inputs) -> Iterator[bytes]:
        with inputs["a"].open() as stream:
            while piece := stream.read(1 << 20):
                yield piece
        yield b"!"

    tracemalloc.start()
    try:
        assert world.restore().ok
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()
    assert copied in world.values.data


def test_a_plan_says_what_would_be_done_and_does_nothing() -> None:
    world = diamond()
    world.add("magic", capability="magic")
    world.lose("magic")
    plan = plan_regeneration(world.graph, StoredOutputs(world.values), world.options())
    assert {node.id: node.action for node in plan.nodes} == {
        "base": "recompute",
        "left": "recompute",
        "right": "recompute",
        "top": "recompute",
        "alone": "recompute",
        "magic": "blocked",
    }
    assert not plan.possible
    assert plan.counts == {"recompute": 5, "blocked": 1}
    assert not world.made
    assert not world.values.data


def test_unknown_executors_are_refused() -> None:
    for name in ("fibres", "threads:0", "threads:x", "processes:-1", "dask:", "dask://", "dask://h:1?other=1"):
        with pytest.raises(InvalidRequest):
            World().restore(executor=name)


# -- being stopped

INTERRUPTED = """
import signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored
sys.path[:0] = {path!r}
from tests.graph.worlds import World
world = World()
world.add("quick")
for at in range(4):
    world.add(f"slow{{at}}", ["quick"], command=("sleep", "60"), capability="")
world.add("hanging", capability="hang")
world.recomputers.recomputes("hang")(lambda node, inputs: threading.Event().wait())
world.lose(*(node.id for node in world.graph))
quick = world.values.data
def tell(event):
    if getattr(event, "current", "") == "quick":
        print("quick", flush=True)
from dataclasses import replace
from backstay.graph.outputs import StoredOutputs
from backstay.graph.regeneration import regenerate
from backstay.graph.executors import ThreadExecutor
options = replace(world.options(ThreadExecutor(6), run_commands=True), events=tell)
try:
    regenerate(world.graph, StoredOutputs(world.values), options)
except KeyboardInterrupt:
    print("stopped", world.key("quick") in world.values.data, flush=True)
"""


def test_ctrl_c_stops_a_restore_at_once_and_keeps_what_was_made() -> None:
    program = [sys.executable, "-c", INTERRUPTED.format(path=[str(Path(__file__).parents[2])])]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "quick\n"
        time.sleep(0.2)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "stopped True\n"
        assert process.wait(10) == 0
        assert time.monotonic() - begun < 5


def test_whoever_is_told_of_progress_may_stop_it_also_while_nothing_ends() -> None:
    world = World()
    world.add("quick")
    world.add("slow", ["quick"], command=("sleep", "60"), capability="")
    world.lose("quick", "slow")
    begun = time.monotonic()

    def tell(event: object) -> None:
        if world.made and time.monotonic() > begun + 0.3:
            raise Interrupted("interrupted")

    options = replace(world.options(run_commands=True), events=tell)
    with pytest.raises(Interrupted):
        regenerate(world.graph, StoredOutputs(world.values), options)
    assert time.monotonic() - begun < 10
    assert world.values.missing([world.key("quick"), world.key("slow")]) == [world.key("slow")]
