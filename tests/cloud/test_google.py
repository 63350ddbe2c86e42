"""Google Cloud Storage, as our own server speaks it: the whole contract."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from backstay.errors import StorageMissing, StorageRefused
from backstay.storage.backend import Capabilities, StorageBackend
from backstay.storage.probing import probe_capabilities
from backstay.storage.registry import open_backend
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


# --- the file of a service account ---


class ServiceAccount:
    """A key pair, the file that Google gives out for it, and a look at what is signed with it."""

    def __init__(self, place: Path) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        self.file = place / "service-account.json"
        private = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        told = {"type": "service_account", "private_key": private, "private_key_id": "k1", "client_email": "me@example"}
        self.file.write_text(json.dumps(told))

    def signed(self, token: str) -> bool:
        """Whether this is a claim of ours that has not expired (RFC 7519, RS256)."""
        if token.count(".") != 2:
            return False
        content, _, signature = token.rpartition(".")
        try:
            self._key.public_key().verify(_decoded(signature), content.encode(), PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        claims = json.loads(_decoded(content.partition(".")[2]))
        return bool(claims["iss"] == "me@example" and claims["exp"] > time.time())


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@pytest.mark.parametrize("variable", ["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_APPLICATION_CREDENTIALS"])
def test_the_file_of_a_service_account(
    variable: str, server: tuple[str, Bucket], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not exchanged for a token: what it signs is one."""
    endpoint, bucket = server
    account = ServiceAccount(home)
    monkeypatch.delenv("GOOGLE_BEARER_TOKEN", raising=False)
    monkeypatch.setenv(variable, str(account.file))
    monkeypatch.setattr(bucket, "admits", account.signed)
    address = f"gs://{BUCKET}/{secrets.token_hex(8)}?endpoint={endpoint}"
    with open_backend(address) as store:
        store.store("a", b"x")
        assert store.retrieve("a") == b"x"
    ServiceAccount(home)  # in the place of the file: a key that the server does not know
    with open_backend(address) as store, pytest.raises(StorageRefused) as caught:
        store.retrieve("a")
    assert "PRIVATE KEY" not in f"{caught.value} {caught.value.hint}"
