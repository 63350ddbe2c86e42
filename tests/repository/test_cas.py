"""The content-addressed store: what goes in comes out, under the SHA-256 that it has."""

from __future__ import annotations

import hashlib
import io
import os
import random
from array import array
from collections import UserDict, UserList
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from backstay.errors import CorruptedBackup, InvalidRequest, NotFound
from backstay.operations.repair.run import repair_index
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.collection.collector import Collector
from backstay.repository.logs.value_entries import MAX_METADATA, SMALL_VALUE
from backstay.repository.repository import Repository
from backstay.repository.values import fold as values_fold
from backstay.repository.values.state import ValuesState
from backstay.testing import MemoryStorage
from tests.operations.copies import SECRET


@pytest.fixture
def backend() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def repository(backend: MemoryStorage) -> Iterator[Repository]:
    with Repository.create(backend, SECRET) as repository:
        yield repository


@pytest.fixture
def cas(repository: Repository) -> ContentAddressableStorage:
    return ContentAddressableStorage(repository)


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, SMALL_VALUE, SMALL_VALUE + 1, 3_000_000])
def test_any_bytes_come_back_exactly(cas: ContentAddressableStorage, repository: Repository, size: int) -> None:
    data = random.Random(size).randbytes(size)
    key = cas.store(data, {"k": "v"})
    assert key == sha(data)
    assert cas.store(data) == key
    for reader in (cas, ContentAddressableStorage(repository)):
        assert reader.retrieve(key) == data
        assert b"".join(reader.open(key.removeprefix("sha256:"))) == data
        assert reader.exists(key)
        assert [*reader.list()] == [key]
        assert reader.info(key).size == size
        assert reader.info(key).metadata == {"k": "v"}


def test_files_streams_and_pieces_are_values_too(cas: ContentAddressableStorage, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(700_000)
    (tmp_path / "file").write_bytes(data)
    assert cas.store(tmp_path / "file") == sha(data)
    assert cas.store(io.BytesIO(data)) == sha(data)
    assert cas.store(data[at : at + 999] for at in range(0, len(data), 999)) == sha(data)
    assert cas.store(memoryview(data)) == sha(data)
    with pytest.raises(NotFound):
        cas.store(tmp_path / "nothing")


def test_a_stream_that_does_not_block_is_not_cut_where_it_has_nothing_yet(cas: ContentAddressableStorage) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(writing, "wb", buffering=0) as end, os.fdopen(reading, "rb") as stream:
        end.write(b"first half, ")
        for given in (stream, stream.raw):
            with pytest.raises(InvalidRequest, match="not at its end"):
                cas.store(given)
            end.write(b"more, ")
    assert [*cas.list()] == []


class _Column(UserList[bytes]):
    """As tables have them: it can be seen as an array."""

    def __array__(self) -> object:
        return self


@pytest.mark.parametrize(
    "value",
    [
        {b"a", b"b"},
        frozenset([b"a"]),
        {b"a": 1}.keys(),
        UserDict({b"a": 1}),
        MappingProxyType({}),
        array("i"),
        array("i", [1]),
        _Column([]),
        _Column([b"a", b"bc"]),
        io.BytesIO,
    ],
    ids=["set", "frozen", "keys", "mapping", "proxy", "no items", "array", "no rows", "column", "class"],
)
def test_what_can_be_iterated_over_and_is_no_series_of_bytes_is_refused(
    cas: ContentAddressableStorage, value: Any
) -> None:
    with pytest.raises(InvalidRequest, match="cannot be stored as a value"):
        cas.store(value)
    assert [*cas.list()] == []


def test_views_are_stored_as_the_bytes_that_they_show(cas: ContentAddressableStorage) -> None:
    data = random.Random(2).randbytes(200_000)
    assert cas.store(memoryview(data)[::2]) == sha(data[::2])
    assert cas.store(iter([memoryview(data)[::2]])) == sha(data[::2])
    assert cas.store(memoryview(data)[::-1]) == sha(data[::-1])
    assert cas.store(memoryview(data)[::-1]) == sha(data[::-1])


def test_texts_are_no_streams_of_bytes_even_when_they_are_empty(cas: ContentAddressableStorage) -> None:
    for text in ("", "text"):
        with pytest.raises(InvalidRequest, match="gave a str"):
            cas.store(io.StringIO(text))


def test_equal_json_values_are_one_value(cas: ContentAddressableStorage) -> None:
    key = cas.store({"b": 1, "a": [1.0, None, "é"]})
    assert key == sha('{"a":[1,null,"é"],"b":1}'.encode())
    assert cas.store({"a": [1, None, "é"], "b": 1.0}) == key
    assert cas.load(key) == {"a": [1, None, "é"], "b": 1}
    assert cas.info(key).is_json


def _circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 2**53, {"a": -(2**53)}, "\ud800", {1: 2}, [b"x"], _circular(), object(), 1j, [{"a"}]],
    ids=["nan", "inf", "large", "negative", "surrogate", "key", "bytes", "circular", "object", "complex", "set"],
)
def test_what_json_cannot_hold_is_refused(cas: ContentAddressableStorage, value: Any) -> None:
    with pytest.raises(InvalidRequest):
        cas.store(value)
    with pytest.raises(InvalidRequest):
        cas.store(b"x", {"key": value})
    assert [*cas.list()] == []


@pytest.mark.parametrize("metadata", [{"k": "x" * MAX_METADATA}, [1], "text"], ids=["large", "list", "text"])
def test_metadata_is_a_small_object(cas: ContentAddressableStorage, metadata: Any) -> None:
    with pytest.raises(InvalidRequest):
        cas.store(b"x", metadata)


@pytest.mark.parametrize("key", ["", "sha256:", "sha256:" + "A" * 64, "0" * 63, "md5:" + "0" * 64, "../" + "0" * 61])
def test_malformed_ids_are_refused(cas: ContentAddressableStorage, key: str) -> None:
    for call in (cas.retrieve, cas.exists, cas.delete, cas.info, cas.load):
        with pytest.raises(InvalidRequest):
            call(key)


@pytest.mark.parametrize("key", [5, None, b"0" * 64])
def test_what_is_no_text_is_refused_among_many_ids(cas: ContentAddressableStorage, key: Any) -> None:
    for call in (cas.missing, cas.unavailable, cas.discard):
        with pytest.raises(InvalidRequest):
            call([key])


def test_what_is_deleted_is_gone(cas: ContentAddressableStorage) -> None:
    for data in (b"small", bytes(200_000)):
        key = cas.store(data)
        assert cas.delete(key)
        assert not cas.exists(key)
        assert not cas.delete(key)
        with pytest.raises(NotFound):
            cas.retrieve(key)
        with pytest.raises(NotFound):
            cas.info(key)
    assert [*cas.list()] == []


def _fail_in_batch(cas: ContentAddressableStorage, values: list[bytes]) -> None:
    with cas.batch() as batch:
        for value in values:
            batch.store(value)
        raise ZeroDivisionError


def test_a_batch_that_has_ended_takes_nothing(cas: ContentAddressableStorage) -> None:
    with cas.batch() as batch:
        batch.store(b"in time")
    with pytest.raises(InvalidRequest):
        batch.store(b"late")


def test_a_batch_counts_at_its_end_or_not_at_all(cas: ContentAddressableStorage) -> None:
    small = [b"%d" % number for number in range(10)]
    many = [b"many %d" % number for number in range(400)]
    for values in (small, many):
        with pytest.raises(ZeroDivisionError):
            _fail_in_batch(cas, values)
        assert [*cas.list()] == []
    for values in (small, many):
        with cas.batch() as batch:
            keys = [batch.store(value) for value in values]
            assert cas.missing(keys) == sorted(keys)
        assert cas.missing(keys) == []
        assert [cas.retrieve(key) for key in keys] == values


def test_new_metadata_replaces_the_earlier(cas: ContentAddressableStorage) -> None:
    for data in (b"small", bytes(200_000)):
        key = cas.store(data, {"a": 1})
        cas.store(data)
        assert cas.info(key).metadata == {"a": 1}
        cas.store(data, {"a": 2})
        assert cas.info(key).metadata == {"a": 2}
        assert cas.retrieve(key) == data


def test_a_fold_changes_nothing_that_can_be_seen(cas: ContentAddressableStorage, repository: Repository) -> None:
    values = [random.Random(number).randbytes(size) for number, size in enumerate([1, 100, 200_000, 150_000, 5, 6])]
    keys = [cas.store(value, {"n": number}) for number, value in enumerate(values)]
    cas.delete(keys[0])
    cas.delete(keys[3])
    kept = [1, 2, 4, 5]
    for is_first in (True, False):
        stored = [cas.info(keys[number]) for number in kept]
        assert (cas.fold() is not None) == is_first
        for reader in (cas, ContentAddressableStorage(repository)):
            assert [*reader.list()] == sorted(keys[number] for number in kept)
            assert [reader.info(keys[number]) for number in kept] == stored
            assert [reader.retrieve(keys[number]) for number in kept] == [values[number] for number in kept]
        assert len(repository.values_log.stored_numbers()) == 1
        assert len(repository.snapshots.live()) == 1
    keys.append(cas.store(b"after"))
    assert cas.delete(keys[1])
    assert cas.fold() is not None
    assert [*cas.list()] == sorted(keys[number] for number in (2, 4, 5, 6))


def test_a_new_version_of_a_large_value_costs_what_differs(
    cas: ContentAddressableStorage, backend: MemoryStorage
) -> None:
    data = random.Random(1).randbytes(3_000_000)
    first = cas.store(data)
    before = sum(info.size for info in backend.list())
    cas.store(data[:1_500_000] + b"!" + data[1_500_000:], base=first)
    assert sum(info.size for info in backend.list()) - before < 700_000
    with pytest.raises(NotFound):
        cas.store(b"x", base=sha(b"nothing"))


def test_versions_of_a_value_are_stored_as_what_changed(
    cas: ContentAddressableStorage, repository: Repository, backend: MemoryStorage
) -> None:
    rng = random.Random(7)
    data = rng.randbytes(3_000_000)
    before = sum(info.size for info in backend.list(""))
    keys = {cas.store(data): data}
    stored = sum(info.size for info in backend.list("")) - before
    for _ in range(5):
        at = rng.randrange(len(data))
        data = data[:at] + rng.randbytes(50) + data[at:]
        keys[cas.store(data, base=[*keys][-1])] = data
    assert sum(info.size for info in backend.list("")) - before - stored < stored / 20
    cas.fold()
    for ulid in [found.id for found in repository.snapshots.live()][:-1]:
        repository.snapshots.drop(ulid, "for a test", repository.clock)
    for _ in range(2):
        collector = Collector(repository)
        collector.execute(collector.plan())
    cas.delete(next(iter(keys)))
    cas.fold()
    reader = ContentAddressableStorage(repository)
    for key, expected in [*keys.items()][1:]:
        assert reader.retrieve(key) == expected
    assert not reader.exists(next(iter(keys)))
    assert run_verify(repository, options=VerifyOptions(read_data=1.0)).findings == ()


def test_a_base_that_helps_nothing_does_no_harm(cas: ContentAddressableStorage, backend: MemoryStorage) -> None:
    small, large = cas.store(b"small"), cas.store(random.Random(1).randbytes(9 << 20))
    for base in (small, large):
        for size in (10, 200_000, 9 << 20):
            data = random.Random(size + len(base)).randbytes(size)
            assert cas.retrieve(cas.store(data, base=base)) == data
    lost = cas.store(random.Random(2).randbytes(300_000))
    for info in [*backend.list("packs/")]:
        backend.delete(info.name)
    data = random.Random(2).randbytes(300_000) + b"!"
    assert cas.retrieve(cas.store(data, base=lost)) == data


def test_a_value_may_change_one_of_the_same_batch(cas: ContentAddressableStorage) -> None:
    data = random.Random(3).randbytes(400_000)
    with cas.batch() as batch:
        first = batch.store(data)
        second = batch.store(data + b"!", base=first)
    assert (cas.retrieve(first), cas.retrieve(second)) == (data, data + b"!")


def test_a_repository_opens_by_its_path_and_a_password(tmp_path: Path) -> None:
    with Repository.create(str(tmp_path / "one"), password="x") as repository:
        key = ContentAddressableStorage(repository).store(b"kept")
    with Repository.open(tmp_path / "one", password="x") as repository:
        assert ContentAddressableStorage(repository).retrieve(key) == b"kept"
    with pytest.raises(InvalidRequest):
        Repository.open(tmp_path / "one")
    with pytest.raises(InvalidRequest):
        Repository.open(tmp_path / "one", SECRET, password="x")


@pytest.mark.parametrize("size", [10, SMALL_VALUE + 1, 3_000_000])
@pytest.mark.parametrize("as_stream", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("is_repaired", [False, True])
def test_a_value_whose_pack_was_lost_is_there_when_it_is_stored_again(
    backend: MemoryStorage, repository: Repository, size: int, *, as_stream: bool, elsewhere: bool, is_repaired: bool
) -> None:
    data = random.Random(size).randbytes(size)
    cas = ContentAddressableStorage(repository)
    key = cas.store(data)
    cas.fold()
    for info in [*backend.list("packs/")]:
        backend.delete(info.name)
    if is_repaired:
        with Repository.open(backend, SECRET) as other:
            repair_index(other)
    with Repository.open(backend, SECRET) as other:
        used = ContentAddressableStorage(other) if elsewhere else cas
        assert used.store(io.BytesIO(data) if as_stream else data) == key
        assert used.retrieve(key) == data
    with Repository.open(backend, SECRET) as other:
        collector = Collector(other)
        collector.execute(collector.plan())
        assert ContentAddressableStorage(other).retrieve(key) == data


def test_what_is_lost_does_not_keep_other_values_from_being_stored(
    backend: MemoryStorage, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values_fold, "MANY_ENTRIES", 3)
    cas = ContentAddressableStorage(repository)
    lost = cas.store(random.Random(1).randbytes(1_000_000))
    for info in [*backend.list("packs/")]:
        backend.delete(info.name)
    keys = [cas.store(f"value {number}".encode()) for number in range(6)]
    assert not cas.missing(keys)
    with pytest.raises(CorruptedBackup):
        cas.fold()
    with pytest.raises(CorruptedBackup):
        cas.retrieve(lost)


def test_every_writer_of_a_process_knows_which_packs_are_lost(backend: MemoryStorage, repository: Repository) -> None:
    cas = ContentAddressableStorage(repository)
    first, second = (random.Random(n).randbytes(1_000_000) for n in range(2))
    key = cas.store(first)
    lost = {info.name: backend.retrieve(info.name) for info in [*backend.list("packs/")]}
    for name in lost:
        backend.delete(name)
    for data in (second + b"!", first + b"!", first + b"?"):
        assert cas.retrieve(cas.store(data)) == data
    cas.delete(key)
    assert cas.retrieve(cas.store(first)) == first
    for name, stored in lost.items():
        backend.store(name, stored)
    with repository.begin_session():
        assert repository.hide_missing_packs() == set()


@pytest.mark.parametrize("is_patched", [False, True])
@pytest.mark.parametrize("wrong", [{"sha256": bytes(32)}, {"size": 199_999}], ids=["bytes", "size"])
def test_a_value_of_other_bytes_than_its_id_says_is_not_given(
    cas: ContentAddressableStorage, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any], is_patched: bool
) -> None:
    """As records would say that somebody forged who has the keys."""
    data = random.Random(1).randbytes(200_000)
    key = cas.store(data)
    if is_patched:
        key = cas.store(data[:1000] + b"new" + data[1003:], base=key)
    find = ValuesState.find
    monkeypatch.setattr(ValuesState, "find", lambda state, digest: replace(find(state, digest), **wrong))  # type: ignore[type-var]
    with pytest.raises(CorruptedBackup, match="other bytes than its id"):
        cas.retrieve(key)
