"""One directory whose listing is lost: what is beside it is restored, found and listed all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.errors import CorruptedBackup
from backstay.operations.repair.run import repair_index
from backstay.operations.restore.comparing import compare_with_target
from backstay.operations.restore.in_place import restore_in_place
from backstay.operations.restore.run import RestoreOptions, plan_restore, run_restore
from backstay.operations.snapshots.look import find, list_entries
from backstay.operations.snapshots.walk import EVERYTHING, walk
from backstay.operations.verify.run import run_verify
from backstay.repository.format import pack_name
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.trees.listings import find_node
from backstay.storage.memory import MemoryStorage
from tests.operations.copies import SECRET, SMALL_PACKS, back_up, contents


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    for name in ("aaa/one", "bbb/below/two", "root.txt"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    return source


@pytest.fixture
def repository(source: Path) -> Repository:
    """Three snapshots; the listing of `aaa`, which the second and third have in common, is lost."""
    store = MemoryStorage()
    with Repository.create(store, SECRET, environment=SMALL_PACKS) as repository:
        back_up(repository, source)
        before = {info.name for info in store.list("meta/")}
        (source / "aaa/three").write_text("three")
        back_up(repository, source)
        lost = {info.name for info in store.list("meta/")} - before
        (source / "bbb/four").write_text("four")
        back_up(repository, source)
    for name in lost:
        store.delete(name)
    return Repository.open(store, SECRET, environment=SMALL_PACKS)


def newest(repository: Repository) -> Manifest:
    return repository.snapshots.live()[-1]


BESIDE = {"bbb/below/two", "bbb/four", "root.txt"}


def test_a_restore_names_the_directory_and_brings_what_is_beside_it(
    repository: Repository, source: Path, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    result = run_restore(repository, newest(repository), place, RestoreOptions(verify=True))
    assert [(item.path, item.code) for item in result.errors] == [(f"{source}/aaa", CorruptedBackup.code)]
    assert contents(place / str(source)[1:]).keys() == BESIDE
    assert not compare_with_target(repository, newest(repository), place, RestoreOptions()).ok


def test_nothing_is_deleted_where_it_is_not_known_what_belongs_there(
    repository: Repository, source: Path, tmp_path: Path
) -> None:
    place = tmp_path / "place" / str(source)[1:]
    for name in ("aaa/one", "aaa/deep/mine", "bbb/strange"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("mine")
    options = RestoreOptions(delete=True, conflict="overwrite")
    plan = plan_restore(repository, newest(repository), tmp_path / "place", options)
    assert (plan.damaged, plan.to_delete) == ([f"{source}/aaa"], [f"{place}/bbb/strange"])
    assert run_restore(repository, newest(repository), tmp_path / "place", options).deleted == 1
    assert contents(place).keys() == BESIDE | {"aaa/one", "aaa/deep/mine"}


def test_a_restore_in_place_does_all_or_nothing(repository: Repository, source: Path) -> None:
    (source / "root.txt").write_text("changed")
    with pytest.raises(CorruptedBackup, match="listing"):
        restore_in_place(repository, newest(repository), RestoreOptions(conflict="overwrite"))
    assert (source / "root.txt").read_text() == "changed"


def test_what_is_beside_it_is_found_and_listed(repository: Repository, source: Path) -> None:
    damaged: list[bytes] = []
    for found in (
        find(repository, newest(repository), EVERYTHING, lambda path, _: damaged.append(path)),
        list_entries(
            repository,
            newest(repository),
            bytes(source),
            recursive=True,
            on_damage=lambda path, _: damaged.append(path),
        ),
    ):
        names = {entry.path.decode().removeprefix(f"{source}/") for entry in found}
        assert BESIDE | {"aaa"} <= names
    assert damaged == [bytes(source / "aaa")] * 2


def test_a_walk_that_tells_nobody_raises(repository: Repository) -> None:
    with pytest.raises(CorruptedBackup):
        list(walk(newest(repository).root, repository.reader))


@pytest.mark.parametrize("indexed", [True, False])
def test_a_verification_names_every_snapshot_that_lacks_something_and_all_that_it_lacks(
    repository: Repository, source: Path, indexed: bool
) -> None:
    if not indexed:
        repair_index(repository)
    _, second, third = repository.snapshots.live()
    told = {finding.subject for finding in run_verify(repository).findings if finding.check == "completeness"}
    assert f"snapshot {third.id}: {source}/aaa/" in told
    assert any(second.id in subject for subject in told)


def test_a_verification_goes_on_behind_a_bad_listing(repository: Repository, source: Path) -> None:
    node = find_node(newest(repository).root, bytes(source / "bbb/four"), repository.reader)
    assert node is not None
    assert node.content is not None
    pack = repository.index.pack(repository.reader.place(node.content.ids).pack)
    repository.backend.delete(pack_name(pack.kind, pack.digest))
    repair_index(repository)
    ident = newest(repository).id
    told = {finding.subject for finding in run_verify(repository, [ident]).findings}
    assert {f"snapshot {ident}: {source}/aaa/", f"snapshot {ident}: {source}/bbb/four"} <= told
