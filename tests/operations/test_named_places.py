"""What is backed up by a path through a symlink is found, and restored, where it really lies."""

from __future__ import annotations

from pathlib import Path

from backstay.core.clock import SystemClock
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.repository.repository import Repository
from backstay.repository.snapshots.selectors import choose
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.storage.memory import MemoryStorage
from backstay.trust.secrets import Secret


def test_a_path_through_a_symlink_is_known_by_the_place_that_it_leads_to(tmp_path: Path) -> None:
    home = tmp_path / "volume/user"
    home.mkdir(parents=True)
    (home / "kept").write_bytes(b"1")
    (tmp_path / "homes").symlink_to("volume")
    with Repository.create(MemoryStorage(), Secret.new_keyfile()) as repository:
        for _ in range(2):
            asked = [bytes(tmp_path / "homes/user")]
            source = FilesystemSource(asked, filters=Filters([]), clock=SystemClock())
            run_backup(repository, source, BackupOptions(host="host"))
        first, second = repository.snapshots.live()
        assert first.paths == second.paths == (bytes(home),)
        assert second.source == first.source == f"filesystem:{tmp_path}/homes/user"
        assert second.parent == first.id
        known, now = repository.snapshots.live(), repository.clock.now()
        assert choose(known, "latest", now=now, path=bytes(home)).id == second.id
        out = tmp_path / "out"
        for _ in range(2):
            run_restore(repository, second, out, RestoreOptions(delete=True))
            restored = out / home.relative_to("/")
            assert [item.name for item in restored.iterdir()] == ["kept"]
            (restored / "stranger").write_bytes(b"2")
