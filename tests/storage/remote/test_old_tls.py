"""Servers that speak no TLS newer than 1.1 get neither a password nor a byte."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from backstay.errors import StorageUnavailable
from backstay.storage.backend import StorageBackend
from backstay.storage.cloud_address import parse_address
from backstay.storage.ftp import open_ftp
from backstay.storage.object_store import ObjectStorage
from backstay.storage.webdav import open_webdav
from tests.cloud.servers import CREDENTIALS
from tests.storage.remote.certificates import Certificates
from tests.storage.remote.conftest import write_netrc


class OldServer:
    """Offers TLS up to `newest`, after AUTH TLS where it speaks FTP; `heard` is what it could decrypt."""

    def __init__(self, certificates: Certificates, newest: ssl.TLSVersion, *, ftp: bool) -> None:
        self.heard: list[bytes] = []
        self.hellos = 0
        self._ftp = ftp
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.set_ciphers("ALL:@SECLEVEL=0")  # else OpenSSL itself has nothing to offer below 1.2
        self._context.minimum_version, self._context.maximum_version = ssl.TLSVersion.TLSv1, newest
        self._context.load_cert_chain(certificates.server)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, suppress(OSError):
                client.settimeout(5)
                if self._ftp:
                    client.sendall(b"220 hello\r\n")
                    client.recv(100)
                    client.sendall(b"234 go on\r\n")
                self.hellos += 1
                with self._context.wrap_socket(client, server_side=True) as secure:
                    self.heard.append(secure.recv(1000))


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2], ids=["1.1", "1.2"])
def newest(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    version: ssl.TLSVersion = request.param
    return version


@pytest.fixture(params=["webdavs", "ftps", "s3"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(scheme: str, newest: ssl.TLSVersion, certificates: Certificates) -> Iterator[OldServer]:
    made = OldServer(certificates, newest, ftp=scheme == "ftps")
    yield made
    made.stop()


def opened(scheme: str, port: int, certificates: Certificates) -> StorageBackend:
    if scheme == "webdavs":
        return open_webdav(f"webdavs://127.0.0.1:{port}/x")
    if scheme == "ftps":
        return open_ftp(f"ftps://127.0.0.1:{port}/x")
    url = f"s3://bucket/x?endpoint=https://127.0.0.1:{port}&ca={certificates.authority}"
    return ObjectStorage(parse_address(url), CREDENTIALS)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_below_1_2_is_refused(
    server: OldServer, scheme: str, newest: ssl.TLSVersion, certificates: Certificates, monkeypatch: pytest.MonkeyPatch,
    home: Path,
) -> None:  # fmt: skip
    write_netrc(home, "keeper", "open-sesame")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with opened(scheme, server.port, certificates) as store, pytest.raises(StorageUnavailable):
        store.retrieve("a")
    assert server.hellos
    # With 1.2 the same server is spoken to, so that it is the version which was refused.
    assert any(server.heard) == (newest is ssl.TLSVersion.TLSv1_2)
