"""How much a restore holds and does at once, and how it is stopped."""

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

from backstay.errors import Interrupted, InvalidRequest
from backstay.graph.executors import ThreadExecutor
from backstay.graph.inputs import Inputs
from backstay.graph.model import Node
from backstay.graph.outputs import StoredOutputs
from backstay.graph.regeneration import plan_regeneration, regenerate
from tests.graph.failures import diamond
from tests.graph.worlds import CAPABILITY, MemoryValues, World, random_world

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
        assert process.wait(50) == 0
        assert time.monotonic() - begun < 50


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
    assert time.monotonic() - begun < 50
    assert world.values.missing([world.key("quick"), world.key("slow")]) == [world.key("slow")]
