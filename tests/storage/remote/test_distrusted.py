"""Servers whose certificate is not to be trusted: what is wrong with it, and what to do."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from backstay.errors import StorageRefused
from backstay.storage.backend import StorageBackend
from backstay.storage.cloud_address import parse_address
from backstay.storage.ftp import open_ftp
from backstay.storage.object_store import ObjectStorage
from backstay.storage.webdav import open_webdav
from tests.cloud.servers import CREDENTIALS
from tests.storage.remote.certificates import make_certificates
from tests.storage.remote.conftest import write_netrc
from tests.storage.remote.test_old_tls import OldServer


def opened(scheme: str, port: int, authority: Path, home: Path) -> StorageBackend:
    if scheme == "webdavs":
        return open_webdav(f"webdavs://127.0.0.1:{port}/x")
    if scheme == "ftps":
        return open_ftp(f"ftps://127.0.0.1:{port}/x")
    url = f"s3://bucket/x?endpoint=https://127.0.0.1:{port}&ca={authority}"
    return ObjectStorage(parse_address(url), {**CREDENTIALS, "HOME": str(home)})


@pytest.mark.parametrize(
    ("host", "days", "hint"), [("127.0.0.1", -1, "renewed"), ("127.0.0.1", 3, "clock"), ("127.0.0.9", 1, "the name")]
)
@pytest.mark.parametrize("scheme", ["webdavs", "ftps", "s3"])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_what_to_do_depends_on_what_is_wrong(
    scheme: str, host: str, days: int, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    write_netrc(home, "keeper", "open-sesame")
    made = make_certificates(tmp_path, host=host, days=days)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    server = OldServer(made, ssl.TLSVersion.TLSv1_2, ftp=scheme == "ftps")
    try:
        with opened(scheme, server.port, made.authority, home) as store, pytest.raises(StorageRefused) as caught:
            store.retrieve("a")
    finally:
        server.stop()
    assert hint in caught.value.hint
    assert not any(server.heard)
