"""A verification says which snapshots and files a missing or damaged pack hits."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.verify.run import VerifyOptions, VerifyReport, run_verify
from backstay.repository.format import RecordKind, pack_name
from backstay.repository.nodes import Node
from backstay.repository.repository import Repository
from backstay.repository.trees.listings import find_node
from backstay.storage.mirrored import Mirrored
from backstay.testing import Fault, FaultyBackend
from backstay.testing.faults import Operation
from tests.crash.small_world import MemorySource, World, content, verified
from tests.operations.copies import SECRET as FILE
from tests.operations.copies import SMALL_PACKS, Store, make_repository, make_source

LARGE = {b"/large": content(1, 150_000), b"/other": content(2, 150_000)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two snapshots that share `/large`; `/new` is in the second one."""
    world = World(tmp_path / "repository")
    world.create().close()
    for tree in (LARGE, LARGE | {b"/new": content(3, 150_000)}):
        with world.open() as repository:
            world.backup(repository, tree)
    return world


def found(repository: Repository, path: bytes) -> Node:
    node = find_node(repository.snapshots.live()[-1].root, path, repository.reader)
    assert node is not None
    return node


def pack_of(world: World, repository: Repository, path: bytes) -> tuple[Path, int]:
    """The pack that holds a file's first chunk, and where its blob is in it."""
    content = found(repository, path).content
    assert content is not None
    place = repository.reader.place(content.ids[:32])
    info = repository.index.pack(place.pack)
    return world.directory / pack_name(info.kind, info.digest), info.blobs[place.ordinal].offset


def hit(report: VerifyReport) -> set[str]:
    return {finding.subject for finding in report.findings if finding.check == "completeness"}


def is_complete(report: VerifyReport) -> bool:
    return next(result.ok for result in report.results if result.check == "completeness")


def test_a_missing_pack(world: World) -> None:
    first, second = sorted(world.promised)
    with world.open() as repository:
        pack_of(world, repository, b"/large")[0].unlink()
        report = run_verify(repository)
    assert {f"snapshot {first}: /large", f"snapshot {second}: /large"} <= hit(report)
    assert f"snapshot {second}: /new" not in hit(report)
    assert not is_complete(report)


def test_a_snapshot_that_is_hit_by_a_pack_which_others_do_not_need(world: World) -> None:
    first, second = sorted(world.promised)
    with world.open() as repository:
        pack_of(world, repository, b"/new")[0].unlink()
        assert hit(run_verify(repository)) == {f"snapshot {second}: /new"}
        assert hit(run_verify(repository, [first])) == set()


@pytest.mark.parametrize("checks", [("integrity", "completeness"), ("completeness",)])
def test_a_pack_that_is_cut(world: World, checks: tuple[str, ...]) -> None:
    with world.open() as repository:
        pack, blob = pack_of(world, repository, b"/new")
        pack.write_bytes(pack.read_bytes()[: blob + 100])
        report = run_verify(repository, None, VerifyOptions(checks=checks))  # type: ignore[arg-type]
    assert f"snapshot {max(world.promised)}: /new" in hit(report)


def test_a_damaged_blob(world: World) -> None:
    """Nothing else in the pack is hit, and nothing is known before it is read."""
    with world.open() as repository:
        pack, blob = pack_of(world, repository, b"/new")
        data = bytearray(pack.read_bytes())
        data[blob + 100] ^= 1
        pack.write_bytes(data)
        assert run_verify(repository).ok
        assert hit(verified(repository)) == {f"snapshot {max(world.promised)}: /new"}


def test_listings_that_are_gone(world: World) -> None:
    with world.open() as repository:
        for pack in (world.directory / "meta").rglob("*/*"):
            pack.unlink()
    with world.open() as repository:
        assert {f"snapshot {ulid}: /" for ulid in world.promised} <= hit(run_verify(repository))


def test_a_pack_that_no_snapshot_needs_makes_none_incomplete(world: World) -> None:
    with world.open() as repository:
        pack, _ = pack_of(world, repository, b"/new")
        world.drop(repository, max(world.promised))
        pack.unlink()
        report = run_verify(repository)
    assert not report.ok
    assert is_complete(report)


def test_what_was_stored_again_in_another_pack_is_complete(world: World) -> None:
    with world.open() as repository:
        pack_of(world, repository, b"/new")[0].unlink()
        tree = LARGE | {b"/new": content(3, 150_000)}
        run_backup(repository, MemorySource(tree), BackupOptions(host="host", kind="full"))
    with world.open() as repository:
        report = verified(repository)
    assert not report.ok
    assert is_complete(report)


def test_a_pack_that_a_copy_out_of_reach_may_have_hits_nothing_for_certain(tmp_path: Path) -> None:
    source, stores = make_source(tmp_path / "source", files=6), [Store("a"), Store("b")]
    make_repository(Mirrored(stores), source)
    away = FaultyBackend(stores[1])
    pack = min(name for name in stores[0].objects() if name.startswith("packs/"))
    with Repository.open(Mirrored([stores[0], away], quorum=1), FILE, environment=SMALL_PACKS) as repository:
        stores[0].delete(pack)
        away.script(*(Fault(kind="error_before", operation=one, repeat=True) for one in get_args(Operation)))
        report = run_verify(repository)
    assert [finding.subject for finding in report.findings] == [pack]
    assert is_complete(report)


def test_of_many_files_some_are_named_and_the_others_counted(tmp_path: Path) -> None:
    world = World(tmp_path / "repository")
    world.create().close()
    with world.open() as repository:
        world.backup(repository, {b"/%02d" % at: content(at, 2000) for at in range(33)})
        [ulid] = world.promised
        for _, info in repository.index.packs():
            if info.kind is RecordKind.DATA_PACK:
                (world.directory / pack_name(info.kind, info.digest)).unlink()
        findings = [one for one in run_verify(repository).findings if one.check == "completeness"]
    assert [one.subject for one in findings] == [
        *(f"snapshot {ulid}: /{at:02}" for at in range(20)),
        f"snapshot {ulid}",
    ]
    assert "13 more paths" in findings[-1].message
