"""What is remembered of snapshots while a program runs."""

from __future__ import annotations

from itertools import pairwise

import pytest

from backstay.errors import CorruptedBackup
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.verify.run import run_verify
from backstay.repository.format import epoch_name
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.storage.memory import MemoryStorage
from tests.crash.small_world import SECRET, MemorySource, Tree, small_tree


def back_up(repository: Repository, tree: Tree) -> Manifest:
    made = run_backup(repository, MemorySource(tree), BackupOptions(host="host"))
    assert made.snapshot is not None
    return repository.snapshots.get(made.snapshot)


def objects(manifest: Manifest) -> dict[bytes, int]:
    return {digest: id(digest) for digest in manifest.packs}


def test_snapshots_that_need_the_same_packs_share_their_names_in_memory() -> None:
    storage = MemoryStorage()
    with Repository.create(storage, SECRET) as repository:
        committed = [back_up(repository, small_tree()), back_up(repository, small_tree() | {b"/new": b"new"})]
    with Repository.open(storage, SECRET) as repository:
        read = repository.snapshots.live()
        read.append(back_up(repository, small_tree() | {b"/newer": b"newer"}))
    assert read[:2] == committed
    for one, other in pairwise(read):
        assert set(one.packs) & set(other.packs)
        known = objects(other)
        assert all(known.get(digest, at) == at for digest, at in objects(one).items())


@pytest.mark.parametrize("left", [0, 40], ids=["empty", "cut"])
def test_a_snapshot_whose_key_is_cut_short_is_told_with_the_name_of_the_key(left: int) -> None:
    store = MemoryStorage()
    with Repository.create(store, SECRET) as repository:
        repository.keyring.begin_epoch(repository.clock)
        made = back_up(repository, small_tree())
    name = epoch_name(2)
    store.store(name, store.retrieve(name)[:left], overwrite=True)
    with Repository.open(store, SECRET) as repository:
        with pytest.raises(CorruptedBackup) as caught:
            repository.snapshots.get(made.id)
        assert name in f"{caught.value.title} {caught.value.cause}"
        assert any(name in finding.message for finding in run_verify(repository).findings)
