"""One server of each kind per test process, started when the first test needs it."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backstay.storage.backend import StorageBackend
from backstay.storage.cloud_address import parse_address
from backstay.storage.object_store import ObjectStorage
from backstay.storage.registry import open_backend
from tests.cli.conftest import Account
from tests.cloud import google_server
from tests.cloud.servers import BUCKET, CREDENTIALS, rclone_s3, seaweedfs


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of SeaweedFS."""
    with seaweedfs(tmp_path_factory.mktemp("weed") / "server") as (endpoint, _):
        yield endpoint


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of `rclone serve s3`."""
    with rclone_s3(tmp_path_factory.mktemp("rclone") / "server") as endpoint:
        yield endpoint


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory: no profile of whoever runs the tests gets in."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (
        "AWS_PROFILE",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AZURE_STORAGE_ACCOUNT_NAME",
    ):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def s3(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ObjectStorage]:
    """Opens an empty place in the bucket of an endpoint."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)

    def open_(endpoint: str, options: str = "") -> ObjectStorage:
        url = f"s3://{BUCKET}/{secrets.token_hex(8)}?endpoint={endpoint}{options}"
        return ObjectStorage(parse_address(url), {**CREDENTIALS, "HOME": str(home)})

    return open_


@pytest.fixture
def account(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Account:
    """A user with a few documents, a password, and the credentials of the test servers."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    documents = home / "documents"
    (documents / "letters").mkdir(parents=True)
    for number in range(5):
        (documents / "letters" / f"letter-{number}.txt").write_text(f"Dear reader {number}\n" * 20)
    (documents / "large.bin").write_bytes(random.Random(1).randbytes(3 << 20))
    return Account(home, capsys, {"HOME": str(home), "TZ": "UTC", "BACKSTAY_PASSWORD": "correct horse"})


@pytest.fixture
def address(weed: str) -> str:
    """Where in SeaweedFS a repository may be made."""
    return f"s3://{BUCKET}/{secrets.token_hex(8)}?endpoint={weed}"


@pytest.fixture
def keys(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return {**CREDENTIALS, "HOME": str(home)}


@pytest.fixture
def google(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[StorageBackend, google_server.Bucket]]:
    for name, value in google_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with google_server.google() as (endpoint, bucket):
        yield open_backend(f"gs://{BUCKET}/x?endpoint={endpoint}"), bucket
