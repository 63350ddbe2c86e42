"""Recomputations on a real cluster of Dask, with a scheduler and workers in threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backstay.errors import InvalidRequest, StorageUnavailable
from backstay.graph import dask_executor
from backstay.graph.dask_executor import DaskExecutor
from tests.graph.test_process_executor import world_of
from tests.graph.worlds import World, actions, result

pytestmark = [
    # Dask's own: sockets and loops that it leaves to the garbage collector when a cluster in this process ends.
    pytest.mark.filterwarnings("ignore::ResourceWarning:distributed"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    import distributed

    with distributed.LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=None,
        silence_logs=50,
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def address(cluster: Any) -> str:
    return str(cluster.scheduler_address).replace("tcp://", "dask://")


@pytest.fixture(scope="module")
def executor(address: str) -> Iterator[DaskExecutor]:
    with DaskExecutor.connect(address) as executor:
        yield executor


def test_nodes_are_made_on_the_cluster(executor: DaskExecutor) -> None:
    world = world_of("", "", "", "")
    expected = dict.fromkeys(str(node.hash) for node in world.graph)
    assert executor.parallel == 2
    report = world.restore(executor=executor)
    assert report.ok, report
    assert list(map(world.values.exists, expected)) == [True] * 4


def test_an_address_is_enough(address: str) -> None:
    world = world_of("")
    assert world.restore(executor=address).ok


def test_what_fails_there_is_told_here(executor: DaskExecutor) -> None:
    world = world_of("", "raise", "")
    report = world.restore(executor=executor)
    assert actions(report) == {"n0": "recomputed", "n1": "failed", "n2": "blocked"}
    assert "raised ZeroDivisionError: no luck" in result(report, "n1").reason
    assert "no output" in result(world_of("none").restore(executor=executor), "n0").reason


def test_what_hangs_there_is_given_up(executor: DaskExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.graph.pipeline.time.sleep", lambda _: threading.Event().wait(2))
    report = world_of("hang").restore(executor=executor, deadline=0.3)
    assert "Dask lets it run on" in result(report, "n0").reason


def test_commands_run_there_too(executor: DaskExecutor) -> None:
    world = World()
    world.add("a")
    world.add("b", ["a"], command=("cat", "{input:a}"), capability="", output_hashes=())
    world.graph.replace(world.graph["b"].model_copy(update={"hash": world.key("a")}))
    world.values.data[world.key("b")] = world.value("a")
    del world.values.data[world.key("a")]
    report = world.restore(executor=executor, run_commands=True)
    assert not report.ok, "a has no importable function"
    assert "cannot run in another process" in result(report, "a").reason


def test_what_is_too_large_to_travel_goes_through_a_shared_directory(
    address: str, executor: DaskExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_executor, "LARGEST", 16)
    world = world_of("", "")
    report = world.restore(executor=executor)
    assert "dask://HOST:PORT?shared=DIR" in dask_executor._too_large("it", 1).hint
    assert "cannot travel" in result(report, "n0" if actions(report)["n0"] == "failed" else "n1").reason
    report = world.restore(executor=f"{address}?shared={tmp_path}")
    assert report.ok, report
    assert not list(tmp_path.iterdir())


def test_a_scheduler_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_executor, "CONNECT_S", 0.3)
    with pytest.raises(StorageUnavailable, match="no Dask scheduler answers at 127"):
        DaskExecutor.connect("dask://127.0.0.1:9")
    with pytest.raises(InvalidRequest):
        DaskExecutor.connect("tcp://127.0.0.1:9")
