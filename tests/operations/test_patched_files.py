"""Files that are patches of others are files like all: restored, read, verified, copied, and kept by collections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backstay.operations.copies.transfer import COPIED_FROM, copy_snapshots
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.operations.snapshots.look import open_file
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.blobs.contents import read_content
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.collection.collector import Collector
from backstay.repository.nodes import Content
from backstay.repository.repository import Repository
from backstay.trust.secrets import Secret
from tests.operations.copies import SECRET, SMALL_PACKS, Store, back_up, contents, make_source, open_alone, restored
from tests.operations.patched import PIECE, patch_snapshot
from tools import dumb_verifier

OTHER = Secret.new_keyfile()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source", files=12)


@pytest.fixture
def expected(source: Path) -> dict[str, bytes | str]:
    """What the patched snapshot holds."""
    return {path: patched(data) if isinstance(data, bytes) else data for path, data in contents(source).items()}


def patched(data: bytes) -> bytes:
    changed = bytearray(data)
    for at in range(0, len(data) if len(data) >= PIECE else 0, PIECE):
        changed[at + min(PIECE, len(data) - at) // 2] ^= 0xFF
    return bytes(changed)


@pytest.fixture
def snapshots(source: Path) -> tuple[Store, str, str]:
    """A repository with (the snapshot of the source, the patched one)."""
    store = Store("ours")
    with Repository.create(store, SECRET, environment=SMALL_PACKS) as repository:
        first = back_up(repository, source)
        return store, first, patch_snapshot(repository, first)


def test_it_costs_next_to_nothing(source: Path, tmp_path: Path) -> None:
    store = Store("ours")
    with Repository.create(store, SECRET, environment=SMALL_PACKS) as repository:
        first = back_up(repository, source)
        before = sum(map(len, store.objects().values()))
        patch_snapshot(repository, first)
        assert sum(map(len, store.objects().values())) - before < before / 10


def test_it_is_restored_read_and_verified(
    snapshots: tuple[Store, str, str], expected: dict[str, bytes | str], source: Path, tmp_path: Path
) -> None:
    store, _, ulid = snapshots
    with open_alone(store) as repository:
        assert restored(repository, ulid, tmp_path / "there", source) == (expected, [])
        large = max((path for path in expected), key=lambda path: len(expected[path]))
        manifest = repository.snapshots.get(ulid)
        whole = b"".join(map(bytes, open_file(repository, manifest, bytes(source / large))))
        assert whole == expected[large]
        assert run_verify(repository, None, VerifyOptions(read_data=1.0)).findings == ()


def test_files_whose_digest_nobody_knows_are_read_back_all_the_same(
    expected: dict[str, bytes | str], source: Path, tmp_path: Path
) -> None:
    with Repository.create(Store("ours"), SECRET, environment=SMALL_PACKS) as repository:
        ulid = patch_snapshot(repository, back_up(repository, source), has_digests=False)
        assert restored(repository, ulid, tmp_path / "there", source) == (expected, [])


def test_a_collection_keeps_what_it_changes(
    snapshots: tuple[Store, str, str], expected: dict[str, bytes | str], source: Path, tmp_path: Path
) -> None:
    store, first, ulid = snapshots
    with open_alone(store) as repository:
        repository.snapshots.drop(first, "for a test", repository.clock)
        for _ in range(2):
            collector = Collector(repository)
            collector.execute(collector.plan())
    with open_alone(store) as repository:
        assert restored(repository, ulid, tmp_path / "there", source) == (expected, [])
        assert run_verify(repository, None, VerifyOptions(read_data=1.0)).findings == ()


def test_a_copy_with_other_keys_has_it_as_a_patch_too(
    snapshots: tuple[Store, str, str], expected: dict[str, bytes | str], source: Path, tmp_path: Path
) -> None:
    store, first, ulid = snapshots
    theirs = Store("theirs")
    with open_alone(store) as ours, Repository.create(theirs, OTHER, environment=SMALL_PACKS) as target:
        copy_snapshots(ours, target, [ours.snapshots.get(first)])
        before = sum(map(len, theirs.objects().values()))
        copy_snapshots(ours, target, [ours.snapshots.get(ulid)])
        assert sum(map(len, theirs.objects().values())) - before < before / 10
    with open_alone(theirs, OTHER) as repository:
        there = {found.consistency[COPIED_FROM].rpartition("/")[2]: found.id for found in repository.snapshots.live()}
        assert restored(repository, there[ulid], tmp_path / "there", source) == (expected, [])
        assert run_verify(repository, None, VerifyOptions(read_data=1.0)).findings == ()


def test_a_lost_base_is_told_of_the_file(
    snapshots: tuple[Store, str, str], expected: dict[str, bytes | str], source: Path, tmp_path: Path
) -> None:
    store, _, ulid = snapshots
    for name in sorted(name for name in store.objects() if name.startswith("packs/"))[:2]:
        store.delete(name)
    with open_alone(store) as repository:
        found, failed = restored(repository, ulid, tmp_path / "there", source)
        assert failed
        assert found == {path: data for path, data in expected.items() if path in found}
        report = run_verify(repository, None, VerifyOptions(read_data=1.0))
        assert not report.ok


def test_a_stranger_s_reader_understands_it(
    snapshots: tuple[Store, str, str], expected: dict[str, bytes | str], source: Path, tmp_path: Path
) -> None:
    store, _, ulid = snapshots
    for name, data in store.objects().items():
        (tmp_path / "repo" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / name).write_bytes(data)
    (tmp_path / "key").write_text(SECRET.printed())
    arguments = [str(tmp_path / "repo"), "--key-file", str(tmp_path / "key")]
    assert dumb_verifier.main([*arguments, ulid, "--restore", str(tmp_path / "there")]) == 0
    assert contents(tmp_path / "there" / str(source).lstrip("/")) == expected


def test_a_patch_that_makes_less_than_the_file_had_is_told_and_leaves_no_file(
    snapshots: tuple[Store, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _, second = snapshots

    def shorter(content: Content, reader: BlobReader) -> Iterator[bytes]:
        yield b"".join(map(bytes, read_content(content, reader)))[:-1]

    monkeypatch.setattr("backstay.operations.restore.contents.read_content", shorter)
    with open_alone(store) as repository:
        result = run_restore(repository, repository.snapshots.get(second), tmp_path / "out", RestoreOptions())
    told = [error for error in result.errors if "do not add up to its size" in error.message]
    assert told
    assert not any((tmp_path / "out" / error.path.lstrip("/")).exists() for error in told)
