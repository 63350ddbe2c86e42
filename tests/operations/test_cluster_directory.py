"""A data directory that is restored says so, durably, before a server is kept from it and until one may start."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.operations.clusters.directory import begin, end
from tests.synced import Synced


@pytest.mark.crash
def test_each_step_is_durable_before_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "global").mkdir()
    (tmp_path / "global/pg_control").touch()
    synced = Synced(tmp_path, monkeypatch)
    begin(tmp_path, 12)
    assert synced.calls == ["fsync backstay_restore", "fsync .", "unlink global/pg_control", "fsync global"]
    assert synced.contents == {"backstay_restore": b"12"}
    synced.calls.clear()
    end(tmp_path)
    assert synced.calls == ["unlink backstay_restore", "fsync ."]
