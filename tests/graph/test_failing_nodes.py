"""What cannot be had blocks only what is made from it, and is told with its reason."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backstay.errors import CorruptedBackup, CycleFound, StorageUnavailable
from backstay.graph.executors import ThreadExecutor
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node
from backstay.graph.outputs import StoredOutputs
from backstay.graph.regeneration import regenerate
from tests.graph.failures import diamond, explode, failing
from tests.graph.worlds import CAPABILITY, MemoryValues, Speechless, World, actions, key_of, result


def leave() -> None:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (explode, "left: its recomputation raised ZeroDivisionError: no luck"),
        (leave, "left: its recomputation raised SystemExit: 3"),
        (lambda: b"other bytes", "the recomputation of left gave another output than the recorded one"),
        (object, "is no output: it is of type object"),
        (lambda: {b"a", b"b"}, "it is of type set, and the items of a set have no order"),
        (lambda: array("i"), "it is of type array, and the elements of an array are not its bytes"),
        (lambda: [float("nan")], "is no JSON"),
        (lambda: iter(["text"]), "something else than bytes: it has a piece of type str"),
        (lambda: SimpleNamespace(read=lambda _: None), "something else than bytes: it has a piece of type NoneType"),
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
    report = world.restore(deadline=1, executor=ThreadExecutor(1))
    assert time.monotonic() - begun < 50
    release.set()
    assert actions(report)["left"] == "failed"
    assert actions(report)["right"] == "recomputed"
    reason = result(report, "left").reason
    assert "took longer than 1.0 s" in reason
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
        late.join(60)
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
    late.join(60)
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


def _add_with_two_outputs(world: World, name: str, deps: Sequence[str] = (), **metadata: Any) -> str:
    """A node with a further output, whose id this gives."""
    further = world.values.store(f"further output of {name}".encode())
    node = world.add(name, deps, **metadata)
    world.graph.replace(node.changed(metadata=node.metadata.changed(output_hashes=(node.hash, further))))
    return further


def test_a_node_with_further_outputs_is_made_again_where_it_must_come_back_as_it_was() -> None:
    world = World()
    world.add("a")
    _add_with_two_outputs(world, "two", ["a"])
    world.lose("two")
    assert actions(world.restore()) == {"a": "reused", "two": "recomputed"}


def test_a_node_with_further_outputs_is_blocked_where_it_may_come_back_different() -> None:
    world = World()
    world.chain("a")
    _add_with_two_outputs(world, "stale", ["a"], input_hashes=(key_of(b"an older a"),))
    _add_with_two_outputs(world, "random", ["a"], deterministic=False)
    world.add("seed", deterministic=False)
    _add_with_two_outputs(world, "after seed", ["seed"])
    world.lose("random", "seed")
    world.salts["seed"] = b"another draw"
    report = world.restore()
    expected = dict.fromkeys(("stale", "random", "after seed"), "blocked")
    assert actions(report) == {"a": "reused", "seed": "recomputed", **expected}
    assert all("only the first of its outputs" in result(report, name).reason for name in expected)
    assert set(report.changed) == {"seed"}


def test_what_is_made_from_a_further_output_is_never_made_from_the_first() -> None:
    world = World()
    further = _add_with_two_outputs(world, "two")
    world.add("on further", ["two"], input_hashes=(further,))
    world.add("seed", deterministic=False)
    world.add("on both", ["two", "seed"], input_hashes=(further, world.key("seed")))
    world.add("on first", ["two"])
    assert actions(world.restore()) == dict.fromkeys(("two", "on further", "seed", "on both", "on first"), "reused")
    world.lose("on further", "on first", "seed")
    world.salts["seed"] = b"another draw"
    report = world.restore()
    assert actions(report) == {
        "two": "reused",
        "on further": "blocked",
        "seed": "recomputed",
        "on both": "blocked",
        "on first": "recomputed",
    }
    for name in ("on further", "on both"):
        assert "made from a further output of two" in result(report, name).reason


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


def recomputing() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("recompute ")}


def test_a_repository_that_does_not_answer_ends_the_restore() -> None:
    class Away(MemoryValues):
        def store(self, content: Any, metadata: Any = None) -> str:
            raise StorageUnavailable("the store is away")

    world = World()
    world.chain("a")
    values, before = Away(), recomputing()
    with pytest.raises(StorageUnavailable):
        world.restore(StoredOutputs(values))
    assert recomputing() <= before


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
