"""S3, as SeaweedFS speaks it: the whole contract."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backstay.storage.backend import Capabilities, StorageBackend
from backstay.storage.object_store import ObjectStorage
from backstay.storage.probing import probe_capabilities
from backstay.testing import StorageConformance

Open = Callable[..., ObjectStorage]


class TestSeaweedFs(StorageConformance):
    @pytest.fixture
    def backend(self, weed: str, s3: Open) -> StorageBackend:
        return s3(weed)


def test_the_probe_finds_all_that_a_repository_needs(weed: str, s3: Open) -> None:
    store = s3(weed)
    assert probe_capabilities(store) == Capabilities(checksums=True)
    assert not [*store.list()]
