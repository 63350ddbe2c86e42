"""The store on an IPFS node: against a stub of Kubo's RPC interface, not a real node."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from backstay.core.clock import SystemClock
from backstay.errors import InvalidRequest, ObjectNotFound, StorageMissing, StorageRefused, StorageUnavailable
from backstay.storage.address import parse_address
from backstay.storage.backend import Capabilities, StorageBackend
from backstay.storage.ipfs import IpfsStorage, open_ipfs
from backstay.storage.probing import probe_capabilities
from backstay.storage.registry import open_backend
from backstay.testing import FakeClock, StorageConformance
from tests.storage.remote.kubo_stub import KuboStub

NAME = "packs/ab/object"
DATA = bytes(range(256)) * 40


@pytest.fixture
def node() -> Iterator[KuboStub]:
    with KuboStub() as stub:
        thread = threading.Thread(target=stub.serve_forever, args=(0.01,))
        thread.start()
        yield stub
        stub.shutdown()
        thread.join()


@pytest.fixture
def store(node: KuboStub) -> Iterator[IpfsStorage]:
    with open_ipfs(f"ipfs://127.0.0.1:{node.port}/made/repository") as backend:
        yield backend


def calls(store: StorageBackend, name: str) -> list[Callable[[], object]]:
    return [
        lambda: store.retrieve(name),
        lambda: store.stat(name),
        lambda: store.exists(name),
        lambda: store.delete(name),
        lambda: [*store.list()],
    ]


class TestKuboStub(StorageConformance):
    @pytest.fixture
    def backend(self, store: IpfsStorage) -> StorageBackend:
        return store


def test_what_it_can_do(store: IpfsStorage) -> None:
    assert probe_capabilities(store) == Capabilities(atomic_create=False, atomic_replace=False)


def test_a_root_that_is_not_there_is_missing(node: KuboStub, store: IpfsStorage) -> None:
    for call in (
        lambda: store.retrieve("a"),
        lambda: [*store.list()],
        lambda: store.delete("a"),
        lambda: store.stat("a"),
    ):
        with pytest.raises(StorageMissing):
            call()
    store.store(NAME, DATA)
    with pytest.raises(ObjectNotFound):
        store.retrieve("a")
    node.files.clear()
    node.directories = {"/"}
    with pytest.raises(StorageMissing):
        store.store("a", DATA)
    assert not node.files


def test_no_file_is_moved_into_a_directory(node: KuboStub, store: IpfsStorage) -> None:
    store.store(NAME, DATA)
    with pytest.raises(InvalidRequest):
        store.store("packs", DATA, overwrite=True)
    assert [*node.files] == [f"/made/repository/{NAME}"]


def test_old_temporaries_are_swept(node: KuboStub, store: IpfsStorage) -> None:
    store.store(NAME, DATA)
    store_s = (store.clock_ns() or 0) // 10**9
    node.files["/made/repository/packs/.tmp-left"] = (b"half", store_s - 1800, 0)
    assert [info.name for info in store.list()] == [NAME]
    assert store.sweep_temporaries(3600) == 0
    assert store.sweep_temporaries(900) == 1
    assert [*node.files] == [f"/made/repository/{NAME}"]


def test_the_time_of_the_node_is_told_by_its_answers(node: KuboStub) -> None:
    address = parse_address(f"ipfs://127.0.0.1:{node.port}/made/repository", credentials="nowhere")
    with IpfsStorage(address, clock=FakeClock(datetime(2001, 1, 1, tzinfo=UTC))) as store:
        before = SystemClock().now_ns() // 10**9
        told = store.clock_ns()
        assert told is not None
        assert before <= told // 10**9 <= SystemClock().now_ns() // 10**9


def test_short_reads_are_noticed(node: KuboStub, store: IpfsStorage) -> None:
    store.store(NAME, DATA)
    node.lose = 1
    with pytest.raises(StorageUnavailable, match="too short"):
        store.retrieve(NAME)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((200, "text/html", b"<html>welcome</html>"), StorageUnavailable),
        ((200, "application/json", b'{"x": ' + b"[" * 100_000), StorageUnavailable),
        ((500, "application/json", b'{"x": ' + b"[" * 100_000), StorageUnavailable),
        ((200, "application/json", b'{"Name": "\xff"}'), StorageUnavailable),
        ((404, "text/plain", b"404 page not found"), StorageUnavailable),
        ((403, "text/plain", b"403 - Forbidden"), StorageRefused),
        ((500, "application/json", b'{"Message": "disk full", "Code": 0}'), StorageUnavailable),
    ],
)
def test_errors_never_look_like_emptiness(
    answer: tuple[int, str, bytes], error: type[StorageUnavailable], node: KuboStub, store: IpfsStorage
) -> None:
    store.store(NAME, DATA)
    node.answer = answer
    for call in (
        lambda: store.retrieve(NAME),
        lambda: [*store.list()],
        lambda: store.exists("x"),
        lambda: store.delete("x"),
    ):
        with pytest.raises(error):
            call()


def test_addresses() -> None:
    assert open_backend("ipfs://host/x").url == "ipfs://host:5001/x"
    for url in ("ipfs://host", "ipfs://a:b@host/x"):
        with pytest.raises(InvalidRequest):
            open_backend(url)
