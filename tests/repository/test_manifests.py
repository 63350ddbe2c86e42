"""What is remembered of snapshots while a program runs."""

from __future__ import annotations

from itertools import pairwise

from backstay.operations.backup.run import BackupOptions, run_backup
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
