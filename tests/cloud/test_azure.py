"""Azure Blob Storage, as Azurite speaks it: the whole contract."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backstay.errors import StorageMissing, StorageRefused, StorageUnavailable
from backstay.storage.backend import Capabilities, StorageBackend
from backstay.storage.probing import probe_capabilities
from backstay.storage.registry import open_backend
from backstay.testing import StorageConformance
from tests.cloud.azurite_server import ACCOUNT, ACCOUNT_KEY, CREDENTIALS, azurite
from tests.cloud.servers import BUCKET


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with azurite(tmp_path_factory.mktemp("azurite") / "server") as found:
        yield found


@pytest.fixture
def backend(endpoint: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> StorageBackend:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return open_backend(f"az://{BUCKET}/{secrets.token_hex(8)}?endpoint={endpoint}")


class TestAzurite(StorageConformance):
    """Nothing differs from other stores."""


def test_the_probe_finds_what_a_repository_needs(backend: StorageBackend) -> None:
    assert probe_capabilities(backend) == Capabilities()


def test_a_missing_container_is_told_as_such(backend: StorageBackend, endpoint: str) -> None:
    missing = open_backend(f"az://no-such-container/x?endpoint={endpoint}")
    calls: dict[str, Callable[[], object]] = {
        "list": lambda: list(missing.list()),
        "stat": lambda: missing.stat("a"),
        "retrieve": lambda: missing.retrieve("a"),
        "delete": lambda: missing.delete("a"),
        "store": lambda: missing.store("a", b"x"),
    }
    for call in calls.values():
        with pytest.raises(StorageMissing, match="the container no-such-container is not there"):
            call()


def test_a_wrong_key_is_refused(endpoint: str, backend: StorageBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    wrong = open_backend(backend.url)
    with pytest.raises(StorageRefused) as caught:
        wrong.store("a", b"x")
    assert "d3Jvbmc" not in f"{caught.value} {caught.value.hint}"


def test_a_connection_string_is_enough(endpoint: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={endpoint}/;"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    with open_backend(f"az://{BUCKET}/{secrets.token_hex(8)}") as store:
        store.store("a", b"x")
        assert store.retrieve("a") == b"x"


def test_the_access_tier_is_sent(backend: StorageBackend, endpoint: str) -> None:
    address = f"az://{BUCKET}/{secrets.token_hex(8)}?endpoint={endpoint}&storage-class="
    with open_backend(address + "Cool") as cool, open_backend(address + "NoSuchTier") as wrong:
        cool.store("a", b"x")
        assert cool.retrieve("a") == b"x"
        with pytest.raises(StorageUnavailable, match="400"):
            wrong.store("b", b"x")
