"""What a restore wrote before is copied where it comes again, as long as it is what it was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from backstay.operations.restore import contents as restore_contents
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.operations.restore.write_process import SmallFile
from backstay.sources.twins import Twins
from tests.operations.restore_writers.world import facts, restored


@pytest.fixture
def families(tree: Path) -> list[Path]:
    """Files that are there once more much later in the tree, so that they are copies of those written before."""
    later = tree / "z"
    later.mkdir()
    copies = [later / f"{old.parent.name}-{old.name}" for old in sorted(tree.glob("d[0-9]/f*")) if old.stat().st_size]
    for copy in copies:
        copy.write_bytes((tree / Path(*copy.name.split("-"))).read_bytes())
    return copies


@pytest.fixture
def asked_for_copies(monkeypatch: pytest.MonkeyPatch) -> list[SmallFile]:
    """All copies that were asked for, while windows are small."""
    asked: list[SmallFile] = []
    copies = restore_contents._Written.copies

    def noted(self: Any, group: Any) -> list[SmallFile] | None:
        found = copies(self, group)
        asked.extend(found or ())
        return found

    monkeypatch.setattr(restore_contents, "WINDOW_FILES", 40)
    monkeypatch.setattr(restore_contents._Written, "copies", noted)
    return asked


@pytest.mark.usefixtures("families")
@pytest.mark.parametrize("processes", [True, False])
def test_what_was_written_before_is_copied(
    tree: Path, tmp_path: Path, asked_for_copies: list[SmallFile], processes: bool, request: pytest.FixtureRequest
) -> None:
    if processes:
        request.getfixturevalue("started")
    repository = request.getfixturevalue("repository")
    assert restored(repository, tmp_path / "out").errors == ()
    assert facts(tmp_path / "out" / tree.relative_to("/")) == facts(tree)
    assert len(asked_for_copies) > 100


@pytest.mark.usefixtures("families")
@pytest.mark.parametrize("harm", ["other bytes", "shorter", "gone", "a symlink", "a pipe", "directory is a symlink"])
def test_a_copy_of_what_is_not_what_it_was_is_fetched_again(
    tree: Path,
    tmp_path: Path,
    asked_for_copies: list[SmallFile],
    harm: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """As if another program changed the target during the restore."""
    repository, out = request.getfixturevalue("repository"), tmp_path / "out"
    read = Twins.read
    secret = tmp_path / "elsewhere"
    secret.mkdir()

    def spoilt(self: Twins, path: bytes, length: int) -> bytes | None:
        file = out / os.fsdecode(path)
        before, aside = file.read_bytes(), file
        if harm == "directory is a symlink":
            aside = file.parent.rename(file.parent.with_name("aside"))
            file.parent.symlink_to(aside)
            self.close()  # not known from before
        else:
            file.rename(secret / "kept")
            if harm in ("other bytes", "shorter"):
                file.write_bytes(bytes(length - (harm == "shorter")))
            elif harm == "a symlink":
                file.symlink_to(secret / "kept")
            elif harm == "a pipe":
                os.mkfifo(file)
        try:
            found = read(self, path, length)
            assert found is None or found != before
            return found
        finally:
            if harm == "directory is a symlink":
                file.parent.unlink()
                aside.rename(file.parent)
            else:
                (secret / "kept").rename(file)

    monkeypatch.setattr(Twins, "read", spoilt)
    newest = repository.snapshots.live()[-1]
    assert run_restore(repository, newest, out, RestoreOptions(verify=True)).errors == ()
    assert {p: f[5] for p, f in facts(out / tree.relative_to("/")).items()} == {p: f[5] for p, f in facts(tree).items()}
    assert asked_for_copies
