"""Connections with TLS that break, which says nothing about who is at their end."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import pytest

from backstay.errors import StorageUnavailable
from backstay.storage.ftp import open_ftp
from backstay.storage.webdav import open_webdav
from tests.storage.remote.certificates import Certificates
from tests.storage.remote.conftest import write_netrc

Serve: TypeAlias = Callable[[socket.socket], None]


@contextmanager
def serving(serve: Serve) -> Iterator[int]:
    """The port of a server that does this with each connection, one at a time."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, suppress(OSError):
                client.settimeout(5)
                serve(client)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _hang_up(client: socket.socket) -> None:
    client.recv(1 << 16)
    client.shutdown(socket.SHUT_RDWR)


def _hang_up_after_auth(client: socket.socket) -> None:
    client.sendall(b"220 hello\r\n")
    client.recv(100)
    client.sendall(b"234 go on\r\n")
    _hang_up(client)


@pytest.mark.parametrize("scheme", ["webdavs", "ftps"])
def test_a_handshake_that_is_cut_off_is_tried_again(scheme: str, home: Path) -> None:
    write_netrc(home, "keeper", "open-sesame")
    with serving(_hang_up_after_auth if scheme == "ftps" else _hang_up) as port:
        opened = open_ftp if scheme == "ftps" else open_webdav
        with opened(f"{scheme}://127.0.0.1:{port}/x") as store, pytest.raises(StorageUnavailable) as caught:
            store.retrieve("a")
    assert caught.value.transient


def test_a_transfer_that_is_garbled_on_its_way_is_tried_again(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    write_netrc(home, "keeper", "open-sesame")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)

    def serve(client: socket.socket) -> None:
        secure = context.wrap_socket(client, server_side=True)
        secure.recv(1000)
        with socket.socket(fileno=os.dup(secure.fileno())) as plain:
            secure.detach()
            plain.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(1 << 16):
                pass

    with (
        serving(serve) as port,
        open_webdav(f"webdavs://127.0.0.1:{port}/x") as store,
        pytest.raises(StorageUnavailable, match="broke off") as caught,
    ):
        store.store("a", bytes(1 << 20))
    assert caught.value.transient
