"""What every storage backend must do, as tests: the sentences of `StorageBackend`, one by one.

A driver's test module needs only this:

    class TestMyStorage(StorageConformance):
        @pytest.fixture
        def backend(self) -> StorageBackend:
            return MyStorage(...)  # empty, and a new one for every test
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from backstay.errors import BackstayError, InvalidRequest, ObjectNotFound, StorageUnavailable
from backstay.storage import promises
from backstay.storage.backend import Buffer, StorageBackend
from backstay.storage.promises import together

BAD_NAMES = (
    "", "/", "/a", "a/", "a//b", ".", "..", "a/.", "../a", "a/../b", "a/./b", "a/..",
    "a b", "a\\b", "a\n", "a\0b", "ä", "a:b", "a%2fb", "a*", "~a+", ".tmp-1-ab", "a/.tmp-x", "x" * 256,
)  # fmt: skip
BAD_PREFIXES = ("/", "/a", "../", "a/../", "a//", "./", "a b", "*", "a\0")


@contextmanager
def _refused(error: type[BackstayError], about: str = "") -> Iterator[None]:
    try:
        yield
    except error:
        return
    raise AssertionError(f"{error.__name__} expected {about}".rstrip())


def _names(backend: StorageBackend, prefix: str = "") -> list[str]:
    return sorted(info.name for info in backend.list(prefix))


def _bytes(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - repeatable, not secret


class StorageConformance:
    """Inherit from it and give a fixture `backend`; each test gets an empty store."""

    # --- store ---

    def test_what_was_stored_comes_back(self, backend: StorageBackend) -> None:
        assert promises.content_comes_back(backend, "sizes") == promises.KEPT

    def test_every_kind_of_buffer_is_taken(self, backend: StorageBackend) -> None:
        whole = _bytes(1000)
        wide = memoryview(bytearray(whole)).cast("I")
        kinds: dict[str, Buffer] = {
            "bytes": whole, "bytearray": bytearray(whole), "view": memoryview(whole), "wide": wide,
        }  # fmt: skip
        for name, data in kinds.items():
            backend.store(name, data)
            assert backend.retrieve(name) == whole, name
        backend.store("slice", memoryview(whole)[10:20])
        assert backend.retrieve("slice") == whole[10:20]
        backend.store("strided", memoryview(whole)[::3])
        assert backend.retrieve("strided") == whole[::3]

    def test_the_callers_buffer_may_be_reused(self, backend: StorageBackend) -> None:
        data = bytearray(b"before")
        backend.store("a", data)
        data[:] = b"after!"
        first = backend.retrieve("a")
        assert first == b"before"
        assert type(first) is bytes, "bytes cannot be changed by whoever gets them"

    def test_an_object_is_written_once(self, backend: StorageBackend) -> None:
        assert promises.written_once(backend, "a") == promises.KEPT

    def test_of_racing_stores_exactly_one_succeeds(self, backend: StorageBackend) -> None:
        if backend.capabilities.atomic_create:
            assert promises.races_have_one_winner(backend, "race") == promises.KEPT
        else:
            assert promises.races_keep_one_object(backend, "race") == promises.KEPT

    def test_overwrite_replaces_the_whole_object(self, backend: StorageBackend) -> None:
        assert promises.overwriting_replaces(backend, "a") == promises.KEPT

    def test_readers_see_the_old_or_the_new_object(self, backend: StorageBackend) -> None:
        contents = [bytes([number]) * 20_000 for number in range(8)]
        backend.store("a", contents[0])

        done = threading.Event()

        def write() -> None:
            try:
                for data in contents:
                    backend.store("a", data, overwrite=True)
            finally:
                done.set()

        def look() -> set[bytes]:
            try:
                return {backend.retrieve("a")}
            except (ObjectNotFound, StorageUnavailable):
                if backend.capabilities.atomic_replace:
                    raise
                return set()

        def read() -> set[bytes]:
            seen = look()
            while not done.is_set():
                seen |= look()
            return seen

        _, *seen = together([write, read, read])
        for found in seen:
            assert isinstance(found, set), found
            assert found <= set(contents), "a reader saw a mixture"
        assert backend.retrieve("a") == contents[-1]

    def test_many_prefix_directories(self, backend: StorageBackend) -> None:
        names = [f"packs/{number:02x}/{number:064x}" for number in range(256)]
        with ThreadPoolExecutor(8) as pool:
            [*pool.map(lambda name: backend.store(name, name.encode()), names)]
        assert _names(backend, "packs/") == names
        assert backend.retrieve(names[-1]) == names[-1].encode()

    # --- retrieve ---

    def test_ranges(self, backend: StorageBackend) -> None:
        assert promises.ranges_are_exact(backend, "a") == promises.KEPT

    def test_a_range_past_the_end_is_an_error(self, backend: StorageBackend) -> None:
        assert promises.bad_ranges_are_refused(backend, "a") == promises.KEPT

    def test_a_negative_range_is_an_error(self, backend: StorageBackend) -> None:
        backend.store("a", b"1234")
        with _refused(InvalidRequest):
            backend.retrieve("a", start=-1)
        with _refused(InvalidRequest):
            backend.retrieve("a", length=-1)

    def test_what_is_absent_is_not_found(self, backend: StorageBackend) -> None:
        backend.store("dir/a", b"x")
        for name in ("b", "dir", "dir/b", "dir/a2", "dir2/a", "dir/a/b"):
            with _refused(ObjectNotFound, f"for {name}"):
                backend.retrieve(name)
            with _refused(ObjectNotFound, f"for a range of {name}"):
                backend.retrieve(name, start=5, length=5)
            with _refused(ObjectNotFound, f"for stat of {name}"):
                backend.stat(name)
            assert not backend.exists(name), name

    def test_stat_and_exists(self, backend: StorageBackend) -> None:
        backend.store("dir/a", b"12345")
        info = backend.stat("dir/a")
        assert (info.name, info.size) == ("dir/a", 5)
        assert info.modified_ns > 0
        assert backend.exists("dir/a")

    # --- delete ---

    def test_delete(self, backend: StorageBackend) -> None:
        backend.store("dir/a", b"x")
        backend.store("dir/ab", b"y")
        backend.delete("dir/a")
        assert not backend.exists("dir/a")
        assert _names(backend) == ["dir/ab"]
        for name in ("dir/a", "dir", "never/was", "dir/ab/c"):
            backend.delete(name)
        assert backend.retrieve("dir/ab") == b"y"

    def test_several_are_deleted_together(self, backend: StorageBackend) -> None:
        for name in ("dir/a", "dir/b", "other/c", "dir/kept"):
            backend.store(name, b"x")
        backend.delete_all(["dir/a", "never/was", "dir/b", "other/c", "dir"])
        backend.delete_all([])
        assert _names(backend) == ["dir/kept"]

    def test_a_deleted_name_can_be_stored_again(self, backend: StorageBackend) -> None:
        backend.store("dir/a", b"first")
        backend.delete("dir/a")
        backend.store("dir/a", b"second")
        assert backend.retrieve("dir/a") == b"second"

    # --- list ---

    def test_an_empty_store_lists_nothing(self, backend: StorageBackend) -> None:
        backend.store("a/b", b"")
        backend.delete("a/b")
        assert _names(backend) == []
        assert _names(backend, "a/") == []

    def test_a_prefix_is_the_beginning_of_the_name(self, backend: StorageBackend) -> None:
        names = sorted(["ab", "abc/x", "abc/y/z", "abd", "b/ab", "a/b", "aB", "abc.d", "abc-d/e"])
        for name in names:
            backend.store(name, name.encode())
        for prefix in ("", "a", "ab", "abc", "abc/", "abc/x", "abc/y", "abc/y/", "abc/y/z", "b", "abd/", "zz", "b/a/b"):
            assert _names(backend, prefix) == [name for name in names if name.startswith(prefix)], repr(prefix)

    def test_a_listing_tells_sizes(self, backend: StorageBackend) -> None:
        for size in (0, 1, 5000):
            backend.store(f"s/{size}", _bytes(size))
        assert {info.name: info.size for info in backend.list("s/")} == {"s/0": 0, "s/1": 1, "s/5000": 5000}

    def test_a_long_listing_is_complete(self, backend: StorageBackend) -> None:
        assert promises.listings_are_complete(backend, "many") == promises.KEPT

    def test_what_was_stored_before_is_listed_while_others_store(self, backend: StorageBackend) -> None:
        before = [f"x/{number % 7}/{number}" for number in range(40)]
        later = [f"x/{number % 7}/later-{number}" for number in range(40)]
        for name in before:
            backend.store(name, b"")

        def write() -> None:
            for name in later:
                backend.store(name, b"half or whole")

        def read() -> list[list[str]]:
            return [_names(backend, "x/") for _ in range(10)]

        _, *seen = together([write, read, read])
        for listings in seen:
            assert isinstance(listings, list), listings
            for listing in listings:
                assert set(before) <= set(listing), "a listing lacks an object that was there all the time"
                assert set(listing) <= {*before, *later}, "a listing shows what is no object"
                assert len(set(listing)) == len(listing), "a listing names an object twice"

    def test_a_listing_may_be_deleted_from_and_left(self, backend: StorageBackend) -> None:
        for number in range(20):
            backend.store(f"d/{number}", b"")
        for info in backend.list("d/"):
            backend.delete(info.name)
        assert _names(backend) == []
        backend.store("d/a", b"")
        backend.store("d/b", b"")
        assert next(iter(backend.list("d/"))).name in ("d/a", "d/b")

    # --- names ---

    def test_bad_names_are_refused(self, backend: StorageBackend) -> None:
        backend.store("a/b", b"x")
        for name in BAD_NAMES:
            calls: tuple[Callable[[], object], ...] = (
                partial(backend.store, name, b"x"),
                partial(backend.store, name, b"x", overwrite=True),
                partial(backend.retrieve, name),
                partial(backend.delete, name),
                partial(backend.stat, name),
                partial(backend.exists, name),
            )
            for call in calls:
                with _refused(InvalidRequest, f"for the name {name!r}"):
                    call()
        for prefix in BAD_PREFIXES:
            with _refused(InvalidRequest, f"for the prefix {prefix!r}"):
                _names(backend, prefix)
        assert _names(backend) == ["a/b"]

    def test_good_names_are_taken(self, backend: StorageBackend) -> None:
        names = sorted(["A", "A.b-c_d", "...", "..a", ".a", "-", "a/b/c/d/e/f/g", "n" * 200, "log/tile/0/x001/067.p.1"])
        for name in names:
            backend.store(name, name.encode())
        assert _names(backend) == names
        assert all(backend.retrieve(name) == name.encode() for name in names)

    def test_the_address_is_told(self, backend: StorageBackend) -> None:
        assert backend.url

    def test_its_room_and_its_clock_are_told_or_unknown(self, backend: StorageBackend) -> None:
        backend.store("a", b"x")
        room, time = backend.room(), backend.clock_ns()
        if room is not None and not 0 <= room.free <= room.total:
            raise AssertionError(f"of {room.total} bytes it has {room.free} left")
        if time is not None and time <= 0:
            raise AssertionError(f"its clock shows {time}")

    def test_close(self, backend: StorageBackend) -> None:
        with backend as same:
            assert same is backend
