"""Functions in spawned processes and with workers that a command starts."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backstay.errors import InvalidRequest, WorkerLost
from backstay.graph.frames import LINE, receive, send, send_pieces
from backstay.graph.model import Node
from backstay.graph.process_executor import ProcessExecutor
from backstay.graph.recompute import DEFAULT, Recomputers
from backstay.graph.worker_pool import WorkerPool, WorkerWay
from tests.graph import pipeline
from tests.graph.test_command_way import assert_gone
from tests.graph.worlds import World, actions, joined, result

ROOT = Path(__file__).parents[2]
WORKER = [sys.executable, "-m", "backstay", "graph", "worker", "--import", "tests.graph.pipeline", "--path", str(ROOT)]


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessExecutor]:
    with ProcessExecutor(2) as executor:
        yield executor


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(WORKER)
    yield pool
    pool.close()


def world_of(*intents: str) -> World:
    """Nodes `n0`, `n1`, … each made from the one before, all lost, that do what their intents say."""
    world = World()
    world.recomputers.recomputes("tests.join")(pipeline.join)
    for at, intent in enumerate(intents):
        deps = [f"n{at - 1}"] if at else []
        world.add(f"n{at}", deps, capability="tests.join", design_intent=intent)
    world.lose(*(f"n{at}" for at in range(len(intents))))
    return world


def with_workers(world: World, pool: WorkerPool) -> World:
    world.recomputers = Recomputers()
    for capability in pool.capabilities():
        world.recomputers.use(capability, WorkerWay(pool))
    return world


@pytest.fixture(params=["processes", "worker"])
def restore(request: pytest.FixtureRequest) -> Any:
    """Restore a world by processes of our own, or by workers that a command started."""

    def run(world: World, **policy: Any) -> Any:
        if request.param == "processes":
            return world.restore(executor=request.getfixturevalue("processes"), **policy)
        return with_workers(world, request.getfixturevalue("pool")).restore(**policy)

    return run


def test_nodes_are_made_in_other_processes(restore: Any) -> None:
    world = world_of("", "", "", "")
    expected = {node.id: node.hash for node in world.graph}
    report = restore(world)
    assert report.ok, report
    assert {node.id: node.hash for node in report.nodes} == expected
    assert all(map(world.values.exists, map(str, expected.values())))


@pytest.mark.parametrize(
    ("intent", "told"),
    [
        ("raise", "its recomputation raised ZeroDivisionError: no luck"),
        ("wrong", "gave another output than the recorded one"),
        ("none", "is no output: it is of type object"),
        ("die", "a worker ended"),
        ("hang", "took longer than 1.0 s: its process was killed"),
    ],
)
def test_what_fails_there_is_told_here(restore: Any, intent: str, told: str) -> None:
    world = world_of("", intent, "")
    report = restore(world, deadline=1 if intent == "hang" else 30)
    assert actions(report) == {"n0": "recomputed", "n1": "failed", "n2": "blocked"}
    assert told in result(report, "n1").reason
    assert "functions may print" not in result(report, "n1").reason or intent == "die"


def test_a_process_that_died_is_replaced_and_its_node_tried_again(restore: Any, tmp_path: Path) -> None:
    report = restore(world_of(f"die-once {tmp_path / 'died'}", ""))
    assert report.ok, report
    assert "try 1 failed" in result(report, "n0").reason


def test_what_a_killed_process_started_is_killed_too(restore: Any, tmp_path: Path) -> None:
    place = tmp_path / "pid"
    report = restore(world_of(f"hang-with-child {place}"), deadline=1.5)
    assert "its process was killed" in result(report, "n0").reason
    assert_gone(int(place.read_text()))


def test_an_input_that_cannot_be_read_is_met_by_a_new_plan(restore: Any) -> None:
    world = world_of("", "")
    world.values.data[world.key("n0")] = b"damaged"
    report = restore(world, validate_before_restore=False)
    assert report.ok, report
    assert actions(report) == {"n0": "recomputed", "n1": "recomputed"}


def test_large_outputs_and_inputs_pass_the_pipe(restore: Any) -> None:
    world = world_of("large", "")
    large = bytes(2 << 20)
    key = world.values.store(large)
    made_from_it = world.values.store(joined("n1", [large]))
    for name, value in (("n0", key), ("n1", made_from_it)):
        metadata = world.graph[name].metadata.model_copy(update={"output_hashes": (), "input_hashes": ()})
        world.graph.replace(world.graph[name].model_copy(update={"hash": value, "metadata": metadata}))
    world.lose("n0", "n1")
    assert restore(world).ok


def test_inputs_may_be_read_in_part_and_side_by_side(restore: Any) -> None:
    world = World()
    world.recomputers.recomputes("tests.join")(pipeline.join)
    one, two = bytes(range(256)) * 4096, bytes(range(255, -1, -1)) * 8192
    output = world.values.store(one[:10] + two[:10] + one[10:] + two[10:15])
    metadata: Any = {"capability": "tests.join", "design_intent": "interleave"}
    for name, data in (("one", one), ("two", two)):
        world.graph.add(Node(id=name, hash=world.values.store(data), status="completed"))
    for name in ("first", "then"):
        world.graph.add(Node(id=name, hash=output, deps=("one", "two"), status="completed", metadata=metadata))
    del world.values.data[output]
    report = restore(world, parallel=1)
    assert report.ok, report


def test_a_process_is_used_again(processes: ProcessExecutor) -> None:
    world = World()
    world.recomputers = DEFAULT.copy()
    assert "tests.join" in world.recomputers.capabilities
    for name in ("a", "b", "c"):
        world.add(name, capability="tests.join", design_intent="process", deterministic=False)
    world.lose("a", "b", "c")
    report = world.restore(executor=processes, parallel=1)
    pids = {json.loads(world.values.data[node.hash])["pid"] for node in report.nodes if node.hash}
    assert len(pids) == 1
    assert os.getpid() not in pids


def test_a_process_that_died_while_it_was_idle_is_not_used() -> None:
    with ProcessExecutor(1) as executor:
        for _ in range(2):
            assert world_of("").restore(executor=executor).ok
            (idle,) = executor._pool._idle
            os.kill(idle._process.pid, signal.SIGKILL)
            idle._process.wait()
        report = world_of("").restore(executor=executor)
        assert report.ok
        assert "try" not in result(report, "n0").reason


def test_functions_that_no_process_can_import_are_told(processes: ProcessExecutor) -> None:
    world = World()
    world.chain("a")
    world.lose("a")
    report = world.restore(executor=processes)
    assert "cannot run in another process" in result(report, "a").reason
    world.recomputers.recomputes("join")(lambda _, __: b"")
    assert "cannot run in another process" in result(world.restore(executor=processes), "a").reason


def test_a_worker_makes_only_what_was_registered_there(pool: WorkerPool) -> None:
    assert pool.capabilities() == ("tests.join",)
    world = World()
    world.chain("a")
    world.lose("a")
    world.recomputers.use("join", WorkerWay(pool))
    assert "this worker does not recompute 'join'" in result(world.restore(), "a").reason
    world.recomputers.use("join", WorkerWay(pool, "os:getpid"))
    assert "this worker does not recompute 'join'" in result(world.restore(), "a").reason


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["no-such-program-anywhere"], "cannot start"),
        ([*WORKER[:-3], "no.such.module"], "the module no.such.module cannot be imported"),
        (["echo", "Welcome to this host!"], "none of its words"),
        (["sh", "-c", "echo go away >&2"], "go away"),
        (["echo", '{"type": "hello", "version": 99}'], "another version"),
    ],
)
def test_a_worker_that_is_none_is_told(argv: list[str], told: str) -> None:
    with pytest.raises(WorkerLost, match=told):
        WorkerPool(argv).capabilities()


def test_a_worker_ends_when_its_asker_does() -> None:
    import subprocess

    worker = subprocess.Popen(WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert receive(worker.stdout)[0]["type"] == "hello"
    node = {"id": "a", "metadata": {"capability": "tests.join", "design_intent": "hang"}}
    send(worker.stdin, "task", node=node, capability="tests.join", function=None)
    time.sleep(0.1)
    worker.stdin.close()
    assert worker.wait(50) == 1
    worker.stdout.close()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"[]\n",
        b"3\n",
        b"{}\n",
        b'{"type": 1}\n',
        b'{"type": "piece", "bytes": -1}\n',
        b'{"type": "piece", "bytes": true}\n',
        b'{"type": "piece", "bytes": 1e99}\n',
        b'{"type": "piece", "bytes": 99999999999}\n',
        b'{"type": "piece", "bytes": 5}\nabc',
        b'{"type": "end"}',
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\n",
    ],
)
def test_frames_that_make_no_sense_are_refused(data: bytes) -> None:
    with pytest.raises(WorkerLost):
        receive(io.BytesIO(data))


def test_frames_come_back_as_they_were_sent() -> None:
    pipe = io.BytesIO()
    send(pipe, "task", node={"id": "é\n"}, function=None)
    send_pieces(pipe, iter([b"a" * (1 << 20) + b"b", b""]))
    pipe.seek(0)
    assert receive(pipe) == ({"type": "task", "node": {"id": "é\n"}, "function": None}, b"")
    assert receive(pipe)[1] == b"a" * (1 << 20)
    assert receive(pipe) == ({"type": "piece", "bytes": 1}, b"b")
    with pytest.raises(WorkerLost):
        receive(pipe)
    assert LINE > 0


def test_an_asker_that_asks_nonsense_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        Recomputers().use("", WorkerWay(WorkerPool(["true"])))
