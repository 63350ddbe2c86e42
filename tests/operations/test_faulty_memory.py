"""A machine that makes errors is told of before anything relies on what it made."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from backstay.codec.cipher import Cipher
from backstay.codec.compression import decompress
from backstay.core.events import Event, Warned
from backstay.errors import MachineFault
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.repository.packs import pack
from backstay.repository.repository import Repository
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.storage.backend import Buffer
from backstay.storage.memory import MemoryStorage
from backstay.trust.secrets import Secret
from tests.sources.filesystem.reading import LateClock

DATA = random.Random(1).randbytes(50_000)


@pytest.mark.parametrize("where", ["compression", "encryption"])
def test_a_backup_fails_for_it_and_does_not_blame_the_snapshot_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    told: list[Event] = []

    def back_up(repository: Repository) -> None:
        source = FilesystemSource([bytes(tmp_path)], filters=Filters([]), clock=LateClock())
        run_backup(repository, source, BackupOptions(host="host"), events=told.append)

    def wrong(codec: int, data: Buffer, raw_length: int) -> Buffer:
        back = bytearray(decompress(codec, data, raw_length))
        back[-1] ^= raw_length >= len(DATA)
        return back

    (tmp_path / "first").write_bytes(b"1")
    with Repository.create(MemoryStorage(), Secret.new_keyfile()) as repository:
        back_up(repository)
        (tmp_path / "second").write_bytes(DATA)
        if where == "compression":
            monkeypatch.setattr(pack, "decompress", wrong)
        else:
            seal = Cipher.seal

            def miscomputed(self: Cipher, nonce: bytes, data: Buffer, bound: bytes) -> bytes:
                sealed = bytearray(seal(self, nonce, data, bound))
                sealed[-1] ^= len(data) >= len(DATA)
                return bytes(sealed)

            monkeypatch.setattr(Cipher, "seal", miscomputed)
        with pytest.raises(MachineFault, match="memory or processor") as raised:
            back_up(repository)
        assert "test the memory" in str(raised.value.hint)
        monkeypatch.undo()
        assert not [event for event in told if isinstance(event, Warned)]
        back_up(repository)
        assert [made.kind for made in repository.snapshots.live()] == ["full", "incremental"]
