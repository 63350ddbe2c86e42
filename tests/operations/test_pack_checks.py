"""Packs are checked the same by this process and by others, and whatever becomes of those."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backstay.codec.compression import Compressor
from backstay.codec.digest import ChunkIds
from backstay.core.events import Event, Warned
from backstay.errors import CorruptedBackup, StorageUnavailable
from backstay.operations.verify import packs as pack_checks
from backstay.operations.verify.check_process import CheckProcess
from backstay.operations.verify.run import VerifyOptions, VerifyReport, run_verify
from backstay.repository.checking.packs import Expected, check_pack
from backstay.repository.format import BlobKind, RecordKind
from backstay.repository.index.index import PackInfo
from backstay.repository.packs.pack import Member, PackBuilder
from backstay.repository.repository import Repository
from backstay.storage.backend import StorageBackend
from backstay.storage.local import LocalStorage
from backstay.testing import MemoryStorage
from tests.descriptors import open_files
from tests.operations.copies import SECRET, SMALL_PACKS, back_up, make_source

READ_ALL = VerifyOptions(read_data=1)
Harm = Callable[[Path], None]


def _change(pack: Path) -> None:
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)


def _shorten(pack: Path) -> None:
    os.truncate(pack, pack.stat().st_size - 1)


def _lengthen(pack: Path) -> None:
    os.truncate(pack, pack.stat().st_size + 1)


def _remove(pack: Path) -> None:
    pack.unlink()


def _pipe(pack: Path) -> None:
    pack.unlink()
    os.mkfifo(pack)


def _overgrow(pack: Path) -> None:
    os.truncate(pack, 1 << 40)  # sparse; reading it would take all memory


@pytest.fixture(params=["files", "elsewhere"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StorageBackend:
    return LocalStorage(tmp_path / "repository") if request.param == "files" else MemoryStorage()


@pytest.fixture
def repository(store: StorageBackend, tmp_path: Path) -> Iterator[Repository]:
    with Repository.create(store, SECRET, environment=SMALL_PACKS) as repository:
        back_up(repository, make_source(tmp_path / "source", files=160))
        assert len(list(repository.index.packs())) > 4
        yield repository


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[CheckProcess]]:
    """The processes that check; all of them must be gone in the end."""
    processes: list[CheckProcess] = []
    start = CheckProcess.__init__

    def noted(self: CheckProcess, *arguments: object) -> None:
        start(self, *arguments)  # type: ignore[arg-type]
        processes.append(self)

    monkeypatch.setattr(pack_checks, "MANY", 2)
    monkeypatch.setattr(CheckProcess, "__init__", noted)
    yield processes
    assert all(process.is_gone() for process in processes)


def verified(repository: Repository, told: list[Event] | None = None) -> VerifyReport:
    return run_verify(repository, options=READ_ALL, events=(told if told is not None else []).append)


def warnings(told: list[Event]) -> list[str]:
    return [event.message for event in told if isinstance(event, Warned)]


def test_processes_find_everything_good(repository: Repository, started: list[CheckProcess]) -> None:
    before = open_files()
    report = verified(repository)
    assert (report.findings, report.packs_read) == ((), report.packs)
    assert len(started) == pack_checks.PROCESSES
    assert open_files() <= before


@pytest.mark.parametrize("harm", [_change, _shorten, _lengthen, _remove, _pipe, _overgrow])
def test_processes_find_what_threads_find(
    tmp_path: Path, started: list[CheckProcess], monkeypatch: pytest.MonkeyPatch, harm: Harm
) -> None:
    with Repository.create(LocalStorage(tmp_path / "repository"), SECRET, environment=SMALL_PACKS) as repository:
        back_up(repository, make_source(tmp_path / "source", files=160))
        packs = sorted((tmp_path / "repository/packs").glob("*/*"))
        for pack in packs[1:3]:
            harm(pack)
        found = verified(repository)
        assert started
        monkeypatch.setattr(pack_checks, "MANY", 1 << 30)
        by_threads = verified(repository)
    assert sorted(map(str, found.findings)) == sorted(map(str, by_threads.findings)) != []
    assert {finding.subject.rpartition("/")[2] for finding in found.findings} >= {pack.name for pack in packs[1:3]}
    assert found.packs_read == found.packs


@pytest.mark.parametrize("requests", [0, 3])
def test_a_process_that_is_killed_is_done_without(
    repository: Repository, started: list[CheckProcess], requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, made = CheckProcess.request, 0

    def killed(self: CheckProcess, expected: Expected, file: int) -> bool:
        nonlocal made
        if made == requests:
            os.kill(self.pid, signal.SIGKILL)
        made += 1
        return request(self, expected, file)

    monkeypatch.setattr(CheckProcess, "request", killed)
    told: list[Event] = []
    before = open_files()
    report = verified(repository, told)
    assert (report.findings, report.packs_read) == ((), report.packs)
    assert len(warnings(told)) == 1
    assert open_files() <= before
    assert started


def test_processes_that_cannot_start_are_done_without(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_checks, "MANY", 2)
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    told: list[Event] = []
    report = verified(repository, told)
    assert (report.findings, report.packs_read) == ((), report.packs)
    assert len(warnings(told)) == 1


def test_a_process_that_sees_damage_is_not_believed_unseen(
    repository: Repository, started: list[CheckProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if memory were bad: what is whole when it is looked at again is no finding."""
    request = CheckProcess.request

    def spoilt(self: CheckProcess, expected: Expected, file: int) -> bool:
        return request(self, Expected(expected.kind, bytes(32), expected.size, expected.columns), file)

    monkeypatch.setattr(CheckProcess, "request", spoilt)
    assert verified(repository).findings == ()
    assert started


def test_a_store_that_does_not_answer_is_no_damage(
    tmp_path: Path, started: list[CheckProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStorage()
    with Repository.create(store, SECRET, environment=SMALL_PACKS) as repository:
        back_up(repository, make_source(tmp_path / "source", files=160))
        retrieve, asked = store.retrieve, 0

        def failing(name: str, *, start: int = 0, length: int | None = None) -> bytes:
            nonlocal asked
            if name.startswith("packs/") and start == 0 and (length or 0) > 1000:
                asked += 1
                if asked > 1:
                    raise StorageUnavailable("the line is cut")
            return retrieve(name, start=start, length=length)

        monkeypatch.setattr(store, "retrieve", failing)
        with pytest.raises(StorageUnavailable):
            verified(repository)
    assert started


@pytest.mark.parametrize("harm", [_change, _shorten, _lengthen, _remove, _pipe, _overgrow])
def test_whatever_happened_to_all_packs_is_told(tmp_path: Path, harm: Harm) -> None:
    """Also to those whose ids would be compared with their own tables, as those of small files are."""
    with Repository.create(LocalStorage(tmp_path / "repository"), SECRET, environment=SMALL_PACKS) as repository:
        back_up(repository, make_source(tmp_path / "source", files=30))
        packs = list((tmp_path / "repository/packs").glob("*/*"))
        for pack in packs:
            harm(pack)
        found = verified(repository)
    assert {finding.subject.rpartition("/")[2] for finding in found.findings} >= {pack.name for pack in packs}


@pytest.mark.parametrize("harm", [_remove, _shorten])
def test_completeness_alone_misses_no_pack(tmp_path: Path, harm: Harm) -> None:
    with Repository.create(LocalStorage(tmp_path / "repository"), SECRET, environment=SMALL_PACKS) as repository:
        back_up(repository, make_source(tmp_path / "source"))
        pack = min((tmp_path / "repository/packs").glob("*/*"))
        alone = VerifyOptions(checks=("completeness",))
        assert run_verify(repository, options=alone).ok
        harm(pack)
        finding, *hit = run_verify(repository, options=alone).findings
        assert (finding.check, finding.subject.rpartition("/")[2]) == ("completeness", pack.name)
        assert bool(hit) == (harm is _remove)  # where only the table at the end is cut, every blob is there


IDS, KEY = ChunkIds(bytes(32)), bytes(32)
REPOSITORY = bytes(16)
FIRST, SECOND = b"first", b"second"


def forged(*blobs: tuple[BlobKind, bytes, bytes, tuple[bytes, ...]]) -> tuple[bytes, Expected]:
    """An authentic pack of (kind, bytes, id, ids of the members FIRST and SECOND), and what its index says of it."""
    builder = PackBuilder(RecordKind.DATA_PACK, repository=REPOSITORY, epoch=1, key=KEY)
    for kind, raw, blob_id, ids in blobs:
        members = [Member(one, len(data)) for one, data in zip(ids, (FIRST, SECOND), strict=False)]
        builder.append(builder.seal(builder.reserve(), kind, blob_id, raw, members, Compressor()))
    pack = builder.finish()
    with builder.data as data:
        return bytes(data), Expected.of(PackInfo(pack.digest, pack.kind, pack.size, pack.epoch, pack.table))


def bundle(*ids: bytes) -> tuple[BlobKind, bytes, bytes, tuple[bytes, ...]]:
    return BlobKind.BUNDLE, FIRST + SECOND, IDS.of(FIRST + SECOND), ids


def chunk(data: bytes, name: bytes) -> tuple[BlobKind, bytes, bytes, tuple[bytes, ...]]:
    return BlobKind.CHUNK, data, IDS.of(name), ()


def checked(data: bytes, expected: Expected) -> None:
    check_pack(data, expected, REPOSITORY, IDS, lambda _: KEY)


def test_a_pack_whose_blobs_and_members_are_what_their_ids_say_is_good() -> None:
    checked(*forged(chunk(b"x", b"x"), bundle(IDS.of(FIRST), IDS.of(SECOND)), chunk(b"y", b"y")))


@pytest.mark.parametrize(
    "blob",
    [
        chunk(FIRST, SECOND),
        (BlobKind.BUNDLE, FIRST + SECOND, IDS.of(FIRST), (IDS.of(FIRST), IDS.of(SECOND))),
        (BlobKind.PADDING, bytes(9), IDS.of(bytes(9)), ()),
        bundle(IDS.of(SECOND), IDS.of(SECOND)),
        bundle(IDS.of(FIRST), IDS.of(FIRST)),
    ],
    ids=["chunk", "bundle", "padding", "first member", "last member"],
)
def test_an_authentic_blob_of_other_bytes_than_an_id_says_is_found(
    blob: tuple[BlobKind, bytes, bytes, tuple[bytes, ...]],
) -> None:
    with pytest.raises(CorruptedBackup, match="holds other bytes than its"):
        checked(*forged(chunk(b"x", b"x"), blob))


def test_a_whole_pack_is_found_under_the_name_or_in_the_place_of_another() -> None:
    data, expected = forged(chunk(FIRST, FIRST))
    _, other = forged(chunk(SECOND, SECOND))
    with pytest.raises(CorruptedBackup, match="was changed"):
        checked(data, Expected(expected.kind, other.digest, expected.size, expected.columns))
    with pytest.raises(CorruptedBackup, match="other blobs than the index says"):
        checked(data, Expected(expected.kind, expected.digest, expected.size, other.columns))
