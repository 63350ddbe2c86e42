"""Addresses, drivers, and trying out what a store can do."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from backstay.errors import InvalidRequest, StorageMissing, StorageRefused, StorageUnavailable
from backstay.storage import drivers
from backstay.storage.backend import Buffer, Capabilities, ObjectInfo, StorageBackend
from backstay.storage.local import LocalStorage
from backstay.storage.memory import MemoryStorage
from backstay.storage.probing import probe_capabilities
from backstay.storage.registry import directory, open_backend
from backstay.testing import CrashPoint, Fault, FaultyBackend


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/srv/backup", "/srv/backup"),
        ("file:///srv/back%20up", "/srv/back up"),
        ("file://localhost/srv/x", "/srv/x"),
        ("file:/srv/x", "/srv/x"),
        ("FILE:/srv/x", "/srv/x"),
        ("~/x", "/home/someone/x"),
        ("file:~/x", "/home/someone/x"),
        ("x/y", "{cwd}/x/y"),
        ("./a:b", "{cwd}/a:b"),
        ("file:x", "{cwd}/x"),
        ("/srv/a:b", "/srv/a:b"),
    ],
)
def test_paths(url: str, path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.chdir(tmp_path)
    backend = open_backend(url, create=False)
    assert isinstance(backend, LocalStorage)
    assert backend.url == path.format(cwd=tmp_path)


@pytest.mark.parametrize(
    ("address", "path"),
    [("a/b", "a/b"), ("./a:b", "a:b"), ("file:a%20b", "a b"), ("file:///srv/x", "/srv/x"), ("~/x", "/home/me/x")],
)
def test_a_directory_is_named_by_a_path_or_a_file_address(
    address: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert directory(address) == Path(path).absolute()


@pytest.mark.parametrize("address", ["", "s3://bucket/x", "memory:", "file://host/x"])
def test_no_other_address_names_a_directory(address: str) -> None:
    with pytest.raises(InvalidRequest):
        directory(address)


def test_memory() -> None:
    MemoryStorage.forget("registry")
    open_backend("memory:registry").store("a", b"x")
    assert open_backend("memory:registry").exists("a")


def test_create_false_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable):
        open_backend(str(tmp_path / "disk"), create=False).store("a", b"x")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("url", ["", "a\0b", "file:", "file://server/share", "memory:", "~nobody-has-this-name/x"])
def test_bad_addresses(url: str) -> None:
    with pytest.raises(InvalidRequest):
        open_backend(url)


def test_unknown_schemes_name_the_known_ones() -> None:
    with pytest.raises(InvalidRequest) as caught:
        open_backend("gopher://user:secret@host/x")
    assert "file:" in caught.value.hint
    assert "memory:" in caught.value.hint
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def open_driver(url: str) -> StorageBackend:
    return MemoryStorage(f"driver {url}")


def open_nonsense(url: str) -> str:
    return url


def _offer(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    point = EntryPoint(name=name, value=value, group=drivers.GROUP)
    monkeypatch.setattr(drivers, "entry_points", lambda group: [point] if group == drivers.GROUP else [])


def test_a_driver_is_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch, "tape", f"{__name__}:open_driver")
    assert open_backend("tape://one").url == "memory:driver tape://one"
    with pytest.raises(InvalidRequest) as caught:
        open_backend("gopher://x")
    assert "tape:" in caught.value.hint


@pytest.mark.parametrize(
    "value", ["no_such_module:open", f"{__name__}:nothing", f"{__name__}:open_nonsense", "math:pi"]
)
def test_a_broken_driver_is_told(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch, "tape", value)
    with pytest.raises(InvalidRequest, match="driver for tape"):
        open_backend("tape://one")


@pytest.mark.parametrize(
    ("url", "library", "extra"),
    [("sftp://h/x", "asyncssh", "sftp"), ("webdavs://h/x", "urllib3", "webdav"), ("ipfs://h/x", "urllib3", "ipfs")],
)
def test_a_missing_library_is_told(url: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("backstay.storage.")]:
        if name not in ("backstay.storage.registry", "backstay.storage.drivers"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    with pytest.raises(InvalidRequest, match="cannot be loaded") as caught:
        open_backend(url)
    assert f"backstay[{extra}]" in caught.value.hint


# --- probing ---


class _Overwriting(MemoryStorage):
    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        super().store(name, data, overwrite=True)


class _WholeAnswers(MemoryStorage):
    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        return super().retrieve(name)


class _Forgetful(MemoryStorage):
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter(())


class _Modest(MemoryStorage):
    capabilities = Capabilities(atomic_create=False, range_reads=False)


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        (MemoryStorage(), Capabilities()),
        (_Overwriting(), Capabilities(atomic_create=False)),
        (_WholeAnswers(), Capabilities(range_reads=False)),
        (_Modest(), Capabilities(atomic_create=False, range_reads=False)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_probe(backend: StorageBackend, expected: Capabilities) -> None:
    assert probe_capabilities(backend) == expected
    assert not [*MemoryStorage.list(backend, "")] if isinstance(backend, MemoryStorage) else True


def test_probe_of_a_directory(tmp_path: Path) -> None:
    store = LocalStorage(tmp_path / "repository")
    assert probe_capabilities(store, rng=random.Random(1)) == Capabilities()
    assert not [*store.list()]


def test_a_store_that_does_not_list_is_refused() -> None:
    backend = _Forgetful()
    with pytest.raises(StorageUnavailable, match="listing"):
        probe_capabilities(backend)
    assert not [*MemoryStorage.list(backend)]


def test_a_store_that_changes_bytes_is_refused() -> None:
    backend = FaultyBackend(MemoryStorage())
    backend.script(Fault(kind="bit_flip", operation="retrieve"))
    with pytest.raises(StorageUnavailable, match="other bytes"):
        probe_capabilities(backend)
    assert not [*backend.list()]


def test_a_short_answer_means_no_ranges() -> None:
    backend = FaultyBackend(MemoryStorage())
    backend.script(Fault(kind="error_before", operation="retrieve", at=2))
    assert probe_capabilities(backend) == Capabilities(range_reads=False)


@pytest.mark.parametrize("error", [StorageRefused("denied", cause="ExpiredToken"), StorageMissing("no bucket")])
def test_a_refusal_does_not_pass_for_a_store_without_ranges(error: StorageUnavailable) -> None:
    class Refusing(MemoryStorage):
        def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
            if start:
                raise error
            return super().retrieve(name)

    with pytest.raises(type(error)):
        probe_capabilities(Refusing())


def test_a_store_that_breaks_off_does_not_pass_for_one_without_ranges() -> None:
    backend = FaultyBackend(MemoryStorage())
    backend.script(*(Fault(kind="error_before", operation="retrieve", at=at) for at in (2, 3)))
    with pytest.raises(StorageUnavailable):
        probe_capabilities(backend)


def test_a_probe_that_dies_leaves_no_more_than_its_object() -> None:
    backend = FaultyBackend(MemoryStorage())
    backend.script(Fault(kind="crash_before", operation="list"))
    with pytest.raises(CrashPoint):
        probe_capabilities(backend)
    assert [info.name[:6] for info in backend.inner.list()] == ["probe/"]
