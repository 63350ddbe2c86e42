"""A data directory that is restored says so, durably, before a server is kept from it and until one may start."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.errors import RestoreConflict
from backstay.operations.clusters.directory import begin, end, require_empty, require_older
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


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (["postmaster.pid", "PG_VERSION"], "belongs to a server"),
        (["backstay_restore", "base"], "was not finished"),
        (["PG_VERSION", "base"], "is not empty"),
        (["notes.txt"], "is not empty"),
    ],
)
def test_what_is_there_is_not_written_over(tmp_path: Path, there: list[str], says: str) -> None:
    require_empty(tmp_path)
    require_empty(tmp_path / "nothing")
    for name in there:
        (tmp_path / name).touch()
    with pytest.raises(RestoreConflict, match=says):
        require_empty(tmp_path)


@pytest.mark.parametrize(
    ("there", "any_cluster", "says"),
    [
        (["postmaster.pid", "PG_VERSION"], True, "belongs to a server"),
        (["notes.txt"], True, "is no data directory"),
        (["PG_VERSION"], False, "is not of this cluster"),
        (["PG_VERSION"], True, None),
        (["backstay_restore"], True, None),
    ],
)
def test_only_an_older_state_of_the_cluster_is_changed_in_place(
    tmp_path: Path, there: list[str], any_cluster: bool, says: str | None
) -> None:
    require_older(tmp_path, 7, any_cluster=False)
    for name in there:
        (tmp_path / name).touch()
    if says is None:
        require_older(tmp_path, 7, any_cluster=any_cluster)
        return
    with pytest.raises(RestoreConflict, match=says):
        require_older(tmp_path, 7, any_cluster=any_cluster)
