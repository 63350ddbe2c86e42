"""The shelf keeps the contract of every Backstay store."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from backstay_ftp_like import open_shelf
from backstay_ftp_like.server import Shelf

from backstay.errors import InvalidRequest, StorageUnavailable
from backstay.storage.backend import Capabilities, StorageBackend
from backstay.storage.probing import probe_capabilities
from backstay.storage.registry import open_backend
from backstay.testing import StorageConformance


@pytest.fixture
def server() -> Iterator[Shelf]:
    with Shelf() as shelf:
        thread = threading.Thread(target=shelf.serve_forever, args=(0.01,))
        thread.start()
        yield shelf
        shelf.shutdown()
        thread.join()


class TestShelf(StorageConformance):
    @pytest.fixture
    def backend(self, server: Shelf) -> Iterator[StorageBackend]:
        with open_shelf(f"shelf://127.0.0.1:{server.port}") as store:
            yield store


def test_the_address_works_once_the_package_is_installed(server: Shelf) -> None:
    with open_backend(f"shelf://127.0.0.1:{server.port}") as store:
        store.store("a", b"kept")
        assert probe_capabilities(store) == Capabilities()
    assert server.things["a"][0] == b"kept"


def test_what_goes_wrong_has_a_type(server: Shelf) -> None:
    with pytest.raises(InvalidRequest):
        open_shelf("shelf://host")
    store = open_shelf(f"shelf://127.0.0.1:{server.port}")
    server.server_close()
    server.shutdown()
    with pytest.raises(StorageUnavailable):
        store.retrieve("a")
