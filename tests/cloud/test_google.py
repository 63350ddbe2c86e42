"""Google Cloud Storage, as our own server speaks it: the whole contract."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from backstay.errors import StorageMissing, StorageRefused
from backstay.storage.backend import Capabilities, StorageBackend
from backstay.storage.registry import open_backend, probe_capabilities
from backstay.testing import StorageConformance
from tests.cloud.google_server import CREDENTIALS, Bucket, google
from tests.cloud.servers import BUCKET


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Bucket]]:
    with google() as found:
        yield found


@pytest.fixture
def endpoint(server: tuple[str, Bucket]) -> str:
    return server[0]


@pytest.fixture
def backend(endpoint: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> StorageBackend:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return open_backend(f"gs://{BUCKET}/{secrets.token_hex(8)}?endpoint={endpoint}")


class TestGoogle(StorageConformance):
    """Nothing differs from other stores."""


def test_the_probe_finds_what_a_repository_needs(backend: StorageBackend) -> None:
    assert probe_capabilities(backend) == Capabilities()


def test_the_storage_class_is_sent(server: tuple[str, Bucket], backend: StorageBackend) -> None:
    endpoint, bucket = server
    with open_backend(f"gs://{BUCKET}/cold?endpoint={endpoint}&storage-class=NEARLINE") as cold:
        cold.store("a", b"x")
    assert bucket.objects["cold/a"][2] == "NEARLINE"


def test_a_missing_bucket_is_told_as_such(backend: StorageBackend, endpoint: str) -> None:
    missing = open_backend(f"gs://no-such-bucket/x?endpoint={endpoint}")
    with pytest.raises(StorageMissing):
        missing.retrieve("a")
    with pytest.raises(StorageMissing):
        list(missing.list())


def test_a_wrong_token_is_refused(backend: StorageBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "wrong-token")
    with pytest.raises(StorageRefused) as caught:
        open_backend(backend.url).stat("a")
    assert "wrong-token" not in f"{caught.value} {caught.value.hint}"
