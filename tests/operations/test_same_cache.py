"""A repository and a copy of it, bit by bit, have one identity and so one cache; each builds on what it has itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.repository import Repository
from backstay.storage.backend import ObjectInfo, StorageBackend
from tests.operations.copies import SECRET, SMALL_PACKS, Store, back_up, make_source


class Meddled(Store):
    """`meddle` runs once, when the index was listed."""

    meddle = staticmethod(lambda: None)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        found = [*super().list(prefix)]
        if prefix == "index/":
            meddle, self.meddle = self.meddle, lambda: None
            meddle()
        return iter(found)


def opened(store: StorageBackend, cache: Path) -> Repository:
    return Repository.open(store, SECRET, cache=cache, environment=SMALL_PACKS)


def test_a_backup_builds_on_nothing_that_only_a_copy_has(tmp_path: Path) -> None:
    """The copy gets it while the index of the repository is read, which may take long."""
    source, cache = make_source(tmp_path / "source", files=6), tmp_path / "cache"
    store = Meddled("first")
    Repository.create(store, SECRET, environment=SMALL_PACKS).close()
    copy = Store("copy", store.objects())

    def back_up_to_the_copy() -> None:
        with opened(copy, cache) as there:
            back_up(there, source)

    with opened(store, cache) as here:
        store.meddle = back_up_to_the_copy
        back_up(here, source)
        assert run_verify(here, options=VerifyOptions(read_data=1)).ok
    with opened(copy, cache) as there:
        assert run_verify(there, options=VerifyOptions(read_data=1)).ok


def test_backups_to_a_repository_and_its_copy_at_once_are_whole(tmp_path: Path) -> None:
    source, cache = make_source(tmp_path / "source", files=6), tmp_path / "cache"
    store = Store("first")
    Repository.create(store, SECRET, environment=SMALL_PACKS).close()
    stores = [store, Store("copy", store.objects())]
    errors: list[BaseException] = []

    def back_up_often(place: Store) -> None:
        try:
            for number in range(5):
                (source / "file-00").write_bytes(bytes(1000 * number))
                with opened(place, cache) as repository:
                    back_up(repository, source)
        except BaseException as error:  # noqa: BLE001 - told by the test
            errors.append(error)

    threads = [threading.Thread(target=back_up_often, args=(place,)) for place in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for place in stores:
        with opened(place, cache) as repository:
            assert len(repository.snapshots.live()) == 5
            assert run_verify(repository, options=VerifyOptions(read_data=1)).ok
