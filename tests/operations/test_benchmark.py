"""The benchmark measures every stage and cleans up."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.core.events import Event, Finished, Started
from backstay.errors import InsufficientSpace, InvalidRequest
from backstay.operations.trials.benchmark import run_benchmark


def test_everything_is_measured_and_removed(tmp_path: Path) -> None:
    events: list[Event] = []
    result = run_benchmark(tmp_path, size=2 << 20, files=40, events=events.append)
    assert [stage.name for stage in result.stages] == ["read", "chunk", "blake3", "sha256", "zstd", "aes", "write"]
    assert [run.name for run in result.runs] == ["backup", "unchanged", "verify", "restore"]
    assert all(stage.rate > 0 and stage.bytes == 1 << 20 for stage in result.stages)
    assert all(run.rate > 0 and run.files_rate > 0 for run in result.runs)
    assert result.files == 42
    assert result.bytes == pytest.approx(2 << 20, rel=0.2)
    assert 0 < result.stored_bytes < result.bytes
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert not list(tmp_path.iterdir())


def test_impossible_requests(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        run_benchmark(tmp_path, size=10)
    with pytest.raises(InvalidRequest):
        run_benchmark(tmp_path / "nowhere")
    with pytest.raises(InsufficientSpace):
        run_benchmark(tmp_path, size=1 << 60)
