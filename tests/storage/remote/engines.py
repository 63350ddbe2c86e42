"""Every remote engine with a server behind it, reached directly or through proxies that break things."""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from backstay.core.clock import Clock
from backstay.storage.address import Address, parse_address
from backstay.storage.backend import StorageBackend
from backstay.storage.cloud_address import parse_address as parse_cloud_address
from backstay.storage.ftp import FtpStorage
from backstay.storage.ipfs import IpfsStorage
from backstay.storage.logins import Login
from backstay.storage.object_store import ObjectStorage
from backstay.storage.patience import Patience
from backstay.storage.sftp import SftpStorage
from backstay.storage.webdav import WebdavStorage
from tests.cloud import azurite_server, google_server, servers
from tests.ports import free_port
from tests.storage.fault_proxy import FaultProxy
from tests.storage.remote.conftest import Keys
from tests.storage.remote.kubo_stub import KuboStub
from tests.storage.remote.processes import ServerProcess, script
from tests.storage.remote.sftp_server import USER, SftpServer

PASSWORD: Final = "open-sesame"
_HERE: Final = "127.0.0.1"
_BEHIND: Final = "127.0.0.2"  # where an FTP server listens, so that a proxy can have the same ports on 127.0.0.1
_LOGIN: Final = Login(USER, PASSWORD)
_WRONG: Final = Login(USER, "wrong")

Opener = Callable[[str, int, str, Patience, Clock], StorageBackend]  # host, port, place, …
Match = Callable[[bytes], bool]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One engine and its server.

    `publishes` finds the HTTP request that makes an object visible, None where the protocol is not HTTP. `intrude`
    opens the store with credentials that are wrong, None where there are none; `environment` holds the right ones, as
    far as they come from there. `absent` opens a bucket that is not there; without buckets that is any other place.
    """

    name: str
    host: str
    port: int
    open: Opener
    intrude: Opener | None = None
    absent: Opener | None = None
    publishes: Match | None = None
    data_port: int | None = None  # FTP: where transfers go
    environment: Mapping[str, str] = field(default_factory=dict)
    sftp: SftpServer | None = None

    @contextmanager
    def behind(self) -> Iterator[tuple[FaultProxy, FaultProxy]]:
        """Proxies before the server: for what is said and for what is transferred; the same one but for FTP."""
        with ExitStack() as stack:
            control = stack.enter_context(FaultProxy((self.host, self.port)))
            data = control
            if self.data_port is not None:
                data = stack.enter_context(FaultProxy((self.host, self.data_port), port=self.data_port))
            yield control, data


def _cloud(
    scheme: str, environment: Mapping[str, str], path: str = "", bucket: str = servers.BUCKET, wrong: str = ""
) -> Opener:
    def open_(host: str, port: int, place: str, patience: Patience, clock: Clock) -> StorageBackend:
        url = f"{scheme}://{bucket}/{place}?endpoint=http://{host}:{port}{path}"
        os.environ.update(environment)  # the fixture restores them
        if wrong:
            os.environ[wrong] = base64.b64encode(b"wrong").decode()
        environ = {**environment, "HOME": os.environ["HOME"]}
        return ObjectStorage(parse_cloud_address(url), environ, patience=patience)

    return open_


def _clouds(scheme: str, environment: Mapping[str, str], secret: str, path: str = "") -> dict[str, Any]:
    return {
        "open": _cloud(scheme, environment, path),
        "intrude": _cloud(scheme, environment, path, wrong=secret),
        "absent": _cloud(scheme, environment, path, bucket="no-such-bucket"),
        "publishes": lambda head: head.startswith(b"PUT "),
        "environment": environment,
    }


@contextmanager
def seaweedfs(place: Path) -> Iterator[Engine]:
    with servers.seaweedfs(place / "weed") as (endpoint, _):
        port, keys = urlsplit(endpoint).port or 0, servers.CREDENTIALS
        yield Engine(name="s3", host=_HERE, port=port, **_clouds("s3", keys, "AWS_SECRET_ACCESS_KEY"))


@contextmanager
def azurite(place: Path) -> Iterator[Engine]:
    with azurite_server.azurite(place / "azurite") as endpoint:
        parts = urlsplit(endpoint)
        clouds = _clouds("az", azurite_server.CREDENTIALS, "AZURE_STORAGE_ACCOUNT_KEY", parts.path)
        yield Engine(name="az", host=_HERE, port=parts.port or 0, **clouds)


@contextmanager
def google(place: Path) -> Iterator[Engine]:
    with google_server.google() as (endpoint, _):
        port, keys = urlsplit(endpoint).port or 0, google_server.CREDENTIALS
        yield Engine(name="gs", host=_HERE, port=port, **_clouds("gs", keys, "GOOGLE_BEARER_TOKEN"))


@contextmanager
def sftp(place: Path, keys: Keys) -> Iterator[Engine]:
    (place / "sftp").mkdir()

    def intrude(host: str, port: int, path: str, patience: Patience, clock: Clock) -> StorageBackend:
        home = Path(os.environ["HOME"]) / ".ssh"
        (home / "id_ed25519").unlink(missing_ok=True)
        with (home / "known_hosts").open("a") as known:
            known.write(keys.known_host(port))
        return SftpStorage(_address(f"sftp://{USER}@{host}:{port}/{path}"), password="wrong", patience=patience)

    def open_(host: str, port: int, path: str, patience: Patience, clock: Clock) -> StorageBackend:
        home = Path(os.environ["HOME"]) / ".ssh"
        with (home / "known_hosts").open("a") as known:
            known.write(keys.known_host(port))
        for name in ("id_ed25519", "id_ed25519.pub"):
            (home / name).write_bytes((keys.directory / name).read_bytes())
        (home / "id_ed25519").chmod(0o600)
        return SftpStorage(_address(f"sftp://{USER}@{host}:{port}/{path}"), patience=patience)

    server = SftpServer(place / "sftp", keys.host, keys.directory / "authorized_keys").start()
    try:
        yield Engine(name="sftp", host=_HERE, port=server.port, open=open_, intrude=intrude, sftp=server)
    finally:
        server.stop()


def _webdav(login: Login) -> Opener:
    def open_(host: str, port: int, place: str, patience: Patience, clock: Clock) -> StorageBackend:
        return WebdavStorage(_address(f"webdav://{host}:{port}/{place}"), login, clock=clock, patience=patience)

    return open_


def _webdavs(name: str, port: int) -> Engine:
    return Engine(
        name=name, host=_HERE, port=port, open=_webdav(_LOGIN), intrude=_webdav(_WRONG),
        publishes=lambda head: head.startswith(b"MOVE "),
    )  # fmt: skip


@contextmanager
def wsgidav(place: Path) -> Iterator[Engine]:
    """With digest authentication, which it offers by default."""
    (files := place / "wsgidav").mkdir()
    port, settings = free_port(), place / "wsgidav.json"
    settings.write_text(
        json.dumps(
            {
                "host": _HERE,
                "port": port,
                "provider_mapping": {"/": str(files)},
                "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
                "http_authenticator": {"accept_basic": False, "accept_digest": True, "default_to_digest": True},
                "verbose": 0,
                "logging": {"enable": False},
            }
        )
    )
    with _running(ServerProcess([script("wsgidav"), f"--config={settings}"], port)):
        yield _webdavs("wsgidav", port)


@contextmanager
def rclone_webdav(place: Path) -> Iterator[Engine]:
    (files := place / "rclone").mkdir()
    port = free_port()
    command = [script("rclone"), "serve", "webdav", str(files), f"--addr={_HERE}:{port}", "--config=/dev/null"]
    with _running(ServerProcess(command, port, {"RCLONE_USER": USER, "RCLONE_PASS": PASSWORD})):
        yield _webdavs("rclone", port)


@contextmanager
def ftp(place: Path) -> Iterator[Engine]:
    (files := place / "ftp").mkdir()
    port, data_port = free_port(), free_port()

    def opener(login: Login) -> Opener:
        def open_(host: str, port: int, path: str, patience: Patience, clock: Clock) -> StorageBackend:
            return FtpStorage(_address(f"ftp://{host}:{port}/{path}"), login, clock=clock, patience=patience)

        return open_

    program = str(Path(__file__).with_name("ftp_server.py"))
    command = [sys.executable, program, str(port), str(files), USER, PASSWORD]
    environment = {"FTP_HOST": _BEHIND, "FTP_DATA_PORT": str(data_port)}
    with _running(ServerProcess(command, port, environment, _BEHIND)):
        yield Engine(
            name="ftp", host=_BEHIND, port=port, open=opener(_LOGIN), intrude=opener(_WRONG), data_port=data_port
        )


@contextmanager
def ipfs(place: Path) -> Iterator[Engine]:
    """A stub, because no node comes as a package."""

    def open_(host: str, port: int, path: str, patience: Patience, clock: Clock) -> StorageBackend:
        return IpfsStorage(_address(f"ipfs://{host}:{port}/{path}"), clock=clock, patience=patience)

    with KuboStub() as node:
        thread = threading.Thread(target=node.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Engine(
                name="ipfs", host=_HERE, port=node.port, open=open_, publishes=lambda head: b"/files/mv?" in head
            )
        finally:
            node.shutdown()
            thread.join()


@contextmanager
def _running(server: ServerProcess) -> Iterator[None]:
    server.start()
    try:
        yield
    finally:
        server.stop()


def _address(url: str) -> Address:
    return parse_address(url, credentials="nowhere")
