"""A web page in place of an answer: from a proxy, a portal that wants a login, or a web server at a wrong address."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.errors import StorageUnavailable
from backstay.storage.backend import StorageBackend
from backstay.storage.cloud_address import parse_address
from backstay.storage.object_store import ObjectStorage
from tests.cloud import google_server
from tests.cloud.calls import every_call, failure
from tests.storage.remote.http_stub import HttpStub, Reply, served


@pytest.mark.parametrize("status", [200, 302, 403, 404, 500, 502, 503])
def test_web_pages_are_no_answers(google: tuple[StorageBackend, google_server.Bucket], status: int) -> None:
    store, bucket = google
    store.store("a", b"x")
    bucket.portal = lambda _: status
    for name, call in every_call(store).items():
        if name == "refuses_damage":
            continue  # it asks S3 only
        assert isinstance(failure(call), StorageUnavailable), name
    bucket.portal = lambda _: 0
    assert store.retrieve("a") == b"x"


def test_a_web_page_in_place_of_a_range_is_asked_again(
    google: tuple[StorageBackend, google_server.Bucket], keys: dict[str, str]
) -> None:
    """Of Google a page lacks what every answer has; S3 takes it for a whole object."""
    there, bucket = google
    there.store("a", b"0123456789")
    bucket.admits = lambda _: True
    store = ObjectStorage(parse_address(there.url.replace("gs://", "s3://")), keys)
    asked: list[str] = []

    def once(path: str) -> int:
        asked.append(path)
        return 200 if len(asked) == 1 else 0

    bucket.portal = once
    assert store.retrieve("a", start=3, length=4) == b"3456"
    bucket.portal = lambda _: 200
    error = failure(lambda: store.retrieve("a", start=3, length=4))
    assert error.transient, "whoever logs in can go on"
    assert "web page" in str(error)


def test_an_empty_directory_is_told_from_a_web_page(google: tuple[StorageBackend, google_server.Bucket]) -> None:
    store, bucket = google
    store.store("repo.json", b"x")
    assert [*store.list("sessions/")] == []
    store.store("sessions/one", b"x")
    for prefix in ("sessions/", "sessions/o", ""):
        asked: list[str] = []

        def once(path: str, asked: list[str] = asked) -> int:
            asked.append(path)
            return 200 if len(asked) == 1 else 0

        bucket.portal = once
        assert "sessions/one" in [info.name for info in store.list(prefix)], prefix


def test_a_web_page_in_the_middle_does_not_end_a_listing(
    google: tuple[StorageBackend, google_server.Bucket],
) -> None:
    store, bucket = google
    names = [f"packs/{number:03}" for number in range(250)]  # three pages
    for name in names:
        store.store(name, b"")
    for bad in range(1, 4):
        listings: list[str] = []

        def portal(path: str, bad: int = bad, listings: list[str] = listings) -> int:
            listings.append(path)
            return 200 if len(listings) == bad else 0

        bucket.portal = portal
        assert sorted(info.name for info in store.list("packs/")) == names, bad
    bucket.portal = lambda path: 200 if "continuation-token" in path or "start-after" in path else 0
    assert "not complete" in str(failure(lambda: list(store.list("packs/"))))


@pytest.fixture(params=["s3", "gs"])
def led_astray(
    request: pytest.FixtureRequest, google: tuple[StorageBackend, google_server.Bucket], keys: dict[str, str]
) -> tuple[StorageBackend, google_server.Bucket]:
    """A store by both drivers, and a bucket before which a web server may answer with all that objects have."""
    store, bucket = google
    bucket.admits = lambda _: True
    bucket.page_headers = {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    bucket.generation = {}
    return ObjectStorage(parse_address(store.url.replace("gs://", f"{request.param}://")), keys), bucket


def astray(bucket: google_server.Bucket, *methods: str) -> None:
    bucket.strays, bucket.portal = methods, lambda _: 200


@pytest.mark.parametrize("tag", google_server.PAGE_TAGS)
def test_a_web_page_with_a_tag_is_no_answer(led_astray: tuple[StorageBackend, google_server.Bucket], tag: str) -> None:
    store, bucket = led_astray
    store.store("a", b"x")
    bucket.page_headers["ETag"] = tag
    astray(bucket, "GET", "HEAD", "PUT", "DELETE")
    for name, call in every_call(store).items():
        if name != "refuses_damage" or store.url.startswith("s3:"):
            assert isinstance(failure(call), StorageUnavailable), name


@pytest.mark.parametrize("tag", google_server.PAGE_TAGS)
def test_what_a_web_page_swallowed_is_not_stored(
    led_astray: tuple[StorageBackend, google_server.Bucket], tag: str
) -> None:
    store, bucket = led_astray
    bucket.page_headers["ETag"] = tag
    for before in ("", "tags are known"):
        astray(bucket, "PUT")
        error = failure(lambda: store.store("a", b"precious"))
        assert (error.title, error.transient) == ("a was not stored", True), before
        bucket.strays = ()
        assert not store.exists("a")
        store.store("another", b"x", overwrite=True)


@pytest.mark.parametrize("tag", google_server.PAGE_TAGS)
def test_a_web_page_does_not_cost_another_program_its_object(
    led_astray: tuple[StorageBackend, google_server.Bucket], tag: str
) -> None:
    store, bucket = led_astray
    store.store("a", b"theirs")
    bucket.page_headers["ETag"] = tag
    astray(bucket, "PUT")
    for data in (b"mine!!", b"of another size"):
        assert failure(lambda data=data: store.store("a", data, overwrite=True)).title == "a was not stored"  # type: ignore[misc]
    assert store.retrieve("a") == b"theirs"


def test_what_a_web_page_swallowed_is_not_deleted(led_astray: tuple[StorageBackend, google_server.Bucket]) -> None:
    store, bucket = led_astray
    store.store("keys/slots/a", b"x")
    astray(bucket, "DELETE")
    assert failure(lambda: store.delete("keys/slots/a")).title == "keys/slots/a was not deleted"
    bucket.strays = ()
    store.delete("keys/slots/a")
    assert not store.exists("keys/slots/a")


def test_a_web_page_does_not_end_the_comparing_of_tags(
    led_astray: tuple[StorageBackend, google_server.Bucket],
) -> None:
    store, bucket = led_astray
    bucket.page_headers["ETag"] = google_server.PAGE_TAGS[1]
    astray(bucket, "PUT")
    failure(lambda: store.store("first", b"x"))
    bucket.strays = ()
    store.store("second", b"x")
    bucket.damage = bytes.upper
    assert failure(lambda: store.store("a", b"changed")).cause == "the store received other bytes"
    assert not store.exists("a")


def test_what_an_answer_proves_is_not_asked_for(led_astray: tuple[StorageBackend, google_server.Bucket]) -> None:
    store, bucket = led_astray
    store.store("packs/a", b"a")
    bucket.asked.clear()
    store.store("packs/b", b"b")  # by its sum
    store.delete("packs/b")  # by the listing of whoever deletes packs
    assert bucket.asked == ["PUT", "DELETE"]


@pytest.mark.parametrize(("generation", "asked"), [({"x-goog-generation": "1"}, ["PUT"]), ({}, ["PUT", "HEAD"])])
def test_of_tags_that_are_no_sums_the_object_is_asked_for_unless_its_version_is_told(
    google: tuple[StorageBackend, google_server.Bucket], generation: dict[str, str], asked: list[str]
) -> None:
    store, bucket = google
    bucket.generation, bucket.damage = generation, bytes.upper
    store.store("packs/a", b"encrypted")
    bucket.asked.clear()
    store.store("packs/b", b"encrypted")
    assert bucket.asked == asked


def test_a_web_page_is_no_answer_of_azure(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    container = b"<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>"
    missing = b"<Error><Code>BlobNotFound</Code></Error>"

    def reply(method: str, path: str, _: object) -> Reply:
        if method == "PUT":
            return 200, {"Content-Type": "text/html", "ETag": google_server.PAGE_TAGS[0]}, google_server.PAGE
        return (404, {}, missing) if "packs/a" in path else (200, {}, container)

    with served(HttpStub(reply)) as stub:
        environ = {"HOME": str(home), "AZURE_STORAGE_ACCOUNT_KEY": "a2V5"}
        address = f"az://box/x?endpoint=http://127.0.0.1:{stub.port}&account=me"
        error = failure(lambda: ObjectStorage(parse_address(address), environ).store("packs/a", b"precious"))
    assert error.title == "packs/a was not stored"
