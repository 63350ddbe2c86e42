"""Trees deeper than Python's own stack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backstay.core.pipeline import Workers
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.snapshots.look import diff
from backstay.operations.snapshots.rewrite import Damage, SnapshotRewriter
from backstay.operations.verify.run import run_verify
from backstay.repository.nodes import Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.trees.listings import find_node
from backstay.repository.trees.node_tree import NodeTree
from backstay.storage.memory import MemoryStorage
from tests.crash.small_world import SECRET, MemorySource, Tree, read_back

DEPTH = 3000
BELOW = b"/d" * DEPTH


@pytest.fixture
def repository() -> Iterator[Repository]:
    with Repository.create(MemoryStorage(), SECRET) as repository:
        yield repository


def back_up(repository: Repository, tree: Tree) -> Manifest:
    made = run_backup(repository, MemorySource(tree), BackupOptions(host="host"))
    assert made.snapshot is not None
    return repository.snapshots.get(made.snapshot)


def test_a_change_far_below_is_stored_and_everything_looks_at_it(repository: Repository) -> None:
    before: Tree = {BELOW + b"/leaf": b"before", BELOW + b"/same": b"same", b"/top": b"top"}
    after = before | {BELOW + b"/leaf": b"afterwards"}
    old, new = back_up(repository, before), back_up(repository, after)
    assert (new.stats.files_changed, new.stats.files_unchanged) == (1, 2)
    assert read_back(repository, new) == after
    assert [found.path for found in diff(repository, old, new)] == [BELOW + b"/leaf"]
    assert run_verify(repository).ok


def test_what_is_lost_far_below_is_left_out(repository: Repository) -> None:
    manifest = back_up(repository, {BELOW + b"/leaf": b"lost", BELOW + b"/other": b"kept"})
    with repository.begin_session(), Workers(1, "seal") as workers:
        writer = repository.writer(workers)
        made = SnapshotRewriter(repository, writer, manifest, Damage(lost=[BELOW + b"/leaf"])).run()
        repository.index.write(writer.take_packs())
        writer.close()
    assert (made.files, made.dirs) == (1, DEPTH + 1)
    assert find_node(made.root, BELOW + b"/other", repository.reader) is not None


def test_a_node_far_below_is_written(repository: Repository) -> None:
    node = Node(b"leaf", 0o100644, 0, 0, "", "", 3, 0)
    with repository.begin_session(), Workers(1, "seal") as workers:
        writer = repository.writer(workers)
        root, _, totals = NodeTree({BELOW[1:] + b"/leaf": node}, mtime_ns=0).write(repository, writer)
        writer.flush()
        repository.index.write(writer.take_packs())
        writer.close()
    assert (totals.files, totals.dirs) == (1, DEPTH + 1)
    found = find_node(root, BELOW + b"/leaf", repository.reader)
    assert found is not None
    assert found.size == 3
