"""What goes wrong on the way to a store: a typed error each time, nothing lost, and doubt is never absence."""

from __future__ import annotations

import random
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import HTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from obstore.exceptions import GenericError

from backstay.errors import (
    BackstayError,
    ObjectFrozen,
    StorageMissing,
    StorageRefused,
    StorageUnavailable,
    StorageUnfit,
)
from backstay.storage.backend import StorageBackend
from backstay.storage.cloud_address import parse_address
from backstay.storage.cloud_clients import CloudStore
from backstay.storage.object_store import ObjectStorage
from backstay.storage.patience import Patience
from backstay.storage.registry import open_backend
from tests.cloud import google_server
from tests.cloud.calls import every_call, failure
from tests.cloud.servers import BUCKET, CREDENTIALS, seaweedfs
from tests.cloud.test_settings import Recorder
from tests.storage.remote.http_stub import HttpStub, served

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult

LARGE = 96 << 20


def test_a_missing_bucket_is_neither_empty_nor_made(weed: str, keys: dict[str, str]) -> None:
    for number, name in enumerate(every_call(open_backend("memory:none"))):
        store = ObjectStorage(parse_address(f"s3://missing-{number}/x?endpoint={weed}"), keys)
        for _ in range(2):
            error = failure(every_call(store)[name])
            assert isinstance(error, StorageMissing), name
            assert f"missing-{number} is not there" in error.title


def test_wrong_credentials_are_refused(weed: str, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong, code in (
        ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId"),
        ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"),
    ):
        monkeypatch.setenv(wrong, "WRONGWRONG")
        store = ObjectStorage(parse_address(f"s3://{BUCKET}/x?endpoint={weed}"), keys)
        for name, call in every_call(store).items():
            error = failure(call)
            assert isinstance(error, StorageRefused), name
            assert not error.transient
            assert "WRONGWRONG" not in f"{error} {error.hint}"
            assert code in error.cause or error.cause == "it answered 403", name  # HEAD of a bucket has no more to say
        monkeypatch.setenv(wrong, CREDENTIALS[wrong])


def test_no_credentials_at_all_are_told(weed: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    with answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n") as metadata:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", metadata)
        store = ObjectStorage(parse_address(f"s3://{BUCKET}/x?endpoint={weed}"), {"HOME": str(home)})
        for name, call in every_call(store).items():
            error = failure(call)
            assert "no credentials were found" in error.cause, name
            assert "credentials" in error.hint


def test_an_object_in_an_archive_is_told(keys: dict[str, str]) -> None:
    body = b"<Error><Code>InvalidObjectState</Code></Error>"
    head = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    with answering(head + body) as endpoint:
        store = ObjectStorage(parse_address(f"s3://{BUCKET}/x?endpoint={endpoint}"), keys)
        error = failure(lambda: store.retrieve("a"))
        assert isinstance(error, ObjectFrozen)
        assert "archive class" in error.cause


@pytest.mark.parametrize(
    ("status", "code", "transient"),
    [
        *((status, "", False) for status in (400, 404, 405, 411, 413, 414, 422, 431, 501, 505)),
        *((status, "", True) for status in (408, 425, 429, 500, 502, 503, 504, 522)),
        (400, "InvalidArgument", False),
        (409, "BucketNotEmpty", False),
        (503, "SlowDown", True),
        (409, "OperationAborted", True),
        (409, "ConditionalRequestConflict", True),
        (400, "RequestTimeout", True),
        (400, "BadDigest", True),
        (400, "Md5Mismatch", True),
        (400, "IncompleteBody", True),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(
    keys: dict[str, str], status: int, code: str, transient: bool
) -> None:
    body = f"<Error><Code>{code}</Code></Error>".encode() if code else b""
    head = f"HTTP/1.1 {status} Some Reason\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    with answering(head + body) as endpoint:
        store = ObjectStorage(parse_address(f"s3://{BUCKET}/x?endpoint={endpoint}"), keys)
        for call in (lambda: store.retrieve("a"), lambda: [*store.list()]):
            error = failure(call)
            assert isinstance(error, StorageUnavailable)
            assert error.transient is transient
            assert str(status) in error.cause


def test_nobody_listens(keys: dict[str, str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        store = ObjectStorage(parse_address(f"s3://{BUCKET}/x?endpoint={endpoint}"), keys)
        for name, call in every_call(store).items():
            error = failure(call)
            assert isinstance(error, StorageUnavailable), name
            assert (error.transient, error.cause) == (True, "Connection refused"), name


def test_a_server_that_never_answers_is_given_up(keys: dict[str, str]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(32)
        address = parse_address(f"s3://{BUCKET}/x?endpoint=http://127.0.0.1:{silent.getsockname()[1]}")
        patience = Patience(connect=0.2, silence=0.2, slowest=1 << 40)
        store = ObjectStorage(address, keys, patience=patience)
        for name, call in every_call(store).items():
            error = failure(call)
            assert (error.transient, error.cause) == (True, "it did not answer in time"), name


# --- answers that are none ---


def test_a_store_that_gives_whole_objects_for_ranges_is_unfit(
    google: tuple[StorageBackend, google_server.Bucket], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = google
    store.store("a", b"0123456789")
    get = obstore.get

    def without_ranges(client: CloudStore, path: str, *, options: GetOptions | None = None) -> GetResult:
        if options:
            raise GenericError("Received non-partial response when range requested")
        return get(client, path)

    monkeypatch.setattr(obstore, "get", without_ranges)
    assert isinstance(failure(lambda: store.retrieve("a", start=3, length=4)), StorageUnfit)


def test_damage_on_the_way_is_noticed_by_the_entity_tag(google: tuple[StorageBackend, google_server.Bucket]) -> None:
    store, bucket = google
    store.store("before", b"sound")
    bucket.damage = bytes.upper
    assert failure(lambda: store.store("a", b"changed")).cause == "the store received other bytes"
    bucket.damage = bytes
    assert not store.exists("a")
    store.store("a", b"changed")


def test_entity_tags_that_are_no_sums_mean_nothing(google: tuple[StorageBackend, google_server.Bucket]) -> None:
    store, bucket = google
    bucket.damage = bytes.upper  # as when the store encrypts: its tags are never the sums of what was sent
    for name in ("a", "b"):
        store.store(name, b"encrypted")


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The endpoint of a server that gives the same answer to everything, and hangs up."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(32)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:  # shut down
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-server\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n{"retention":',
        b"HTTP/1.1 403 No\r\nContent-Length: 100\r\n\r\n{}",
    ],
)
def test_no_whole_answer_about_a_lock_of_google_is_an_error_that_may_pass(
    answer: bytes, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in google_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with answering(answer) as endpoint:
        address = parse_address(f"gs://{BUCKET}/x?endpoint={endpoint}&retain-days=3")
        locks = ObjectStorage(address, {**google_server.CREDENTIALS, "HOME": str(home)}).retention()
        assert locks is not None
        for call in (lambda: locks.state("packs/ab/one"), lambda: locks.hold("packs/ab/one", on=True)):
            error = failure(call)
            assert isinstance(error, StorageUnavailable)
            assert error.transient


def test_answers_cut_short_are_errors(home: Path, keys: dict[str, str]) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nETag: x\r\n\r\n"
    with answering(head + b"only a part") as endpoint:
        store = ObjectStorage(parse_address(f"s3://{BUCKET}/x?endpoint={endpoint}"), keys)
        assert failure(lambda: store.retrieve("a")).cause == "the connection broke"
        whole = failure(lambda: store.retrieve("a", start=0, length=11))
        assert whole.cause == "it gave the whole object instead of a part"


@pytest.mark.parametrize("sent", [b"", b"only a part"])
def test_a_part_of_another_length_than_was_asked_for_is_an_error(home: Path, keys: dict[str, str], sent: bytes) -> None:
    """As from a proxy that cuts what it passes on, and says of it what the server said of the whole."""
    head = "HTTP/1.1 206 Partial Content\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nETag: x\r\n"
    head += f"Content-Range: bytes 0-19/100\r\nContent-Length: {len(sent)}\r\n\r\n"
    with answering(head.encode() + sent) as endpoint:
        store = ObjectStorage(parse_address(f"s3://{BUCKET}/x?endpoint={endpoint}"), keys)
        error = failure(lambda: store.retrieve("a", start=0, length=20))
        assert isinstance(error, StorageUnavailable)
        assert error.cause == f"{len(sent)} bytes came instead of 20"


def test_a_web_page_is_no_proof_that_the_bucket_is_missing(home: Path, keys: dict[str, str]) -> None:
    page = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 13\r\nConnection: close\r\n\r\n"
    with answering(page + b"<html></html>") as endpoint:
        store = ObjectStorage(parse_address(f"s3://{BUCKET}/x?endpoint={endpoint}"), keys)
        for name, call in every_call(store).items():
            assert not isinstance(failure(call), StorageMissing), name


def test_a_large_object_is_read_whole(weed: str, keys: dict[str, str]) -> None:
    store = ObjectStorage(parse_address(f"s3://{BUCKET}/{secrets.token_hex(8)}?endpoint={weed}"), keys)
    body = random.Random(7).randbytes((20 << 20) + 1)
    store.store("large", body)
    assert store.retrieve("large") == body
    assert store.retrieve("large", start=len(body) - 5) == body[-5:]
    store.delete("large")


# --- a server that dies ---


def test_a_server_killed_while_storing_loses_nothing_it_acknowledged(tmp_path: Path, keys: dict[str, str]) -> None:
    body = random.Random(5).randbytes(LARGE)
    outcomes: dict[str, BackstayError | None] = {}
    for delay in (0.02, 0.1):
        with seaweedfs(tmp_path / "server") as (endpoint, process):
            store = ObjectStorage(parse_address(f"s3://{BUCKET}/x?endpoint={endpoint}"), keys)
            store.store(f"before-{delay}", b"acknowledged")
            outcomes[f"before-{delay}"] = None

            def put(store: ObjectStorage = store, name: str = f"during-{delay}") -> None:
                try:
                    store.store(name, body)
                except BackstayError as error:
                    outcomes[name] = error
                else:
                    outcomes[name] = None

            thread = threading.Thread(target=put)
            thread.start()
            time.sleep(delay)
            process.kill()
            process.wait()
            thread.join()
    with seaweedfs(tmp_path / "server") as (endpoint, _):
        store = ObjectStorage(parse_address(f"s3://{BUCKET}/x?endpoint={endpoint}"), keys)
        for name, error in outcomes.items():
            assert error is None or isinstance(error, StorageUnavailable), error
            if error is None or store.exists(name):
                assert store.retrieve(name) == (body if name.startswith("during") else b"acknowledged"), name


def test_a_server_killed_while_reading_gives_all_or_an_error(tmp_path: Path, keys: dict[str, str]) -> None:
    body = random.Random(6).randbytes(LARGE)
    with seaweedfs(tmp_path / "server") as (endpoint, process):
        store = ObjectStorage(parse_address(f"s3://{BUCKET}/x?endpoint={endpoint}"), keys)
        store.store("large", body)
        results: list[bytes | BackstayError] = []

        def read() -> None:
            try:
                results.append(store.retrieve("large"))
            except BackstayError as error:
                results.append(error)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        process.kill()
        process.wait()
        for thread in threads:
            thread.join()
        assert len(results) == 3
        assert all(result == body or isinstance(result, StorageUnavailable) for result in results)
        assert isinstance(failure(lambda: store.retrieve("large")), StorageUnavailable)


# --- certificates ---


def certificates(place: Path) -> tuple[Path, Path]:
    """A file with an authority that no system trusts, and one with the certificate for 127.0.0.1 that it gave."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("authority", authority_key, "authority", authority_key, is_authority=True)
    own = _certificate("127.0.0.1", key, "authority", authority_key, is_authority=False)
    (public := place / "ca.pem").write_bytes(authority.public_bytes(Encoding.PEM))
    (private := place / "server.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + own.public_bytes(Encoding.PEM)
    )
    return public, private


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, by: str, with_: ec.EllipticCurvePrivateKey, *, is_authority: bool
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, by)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(with_, hashes.SHA256())
    )


class _Quiet(HTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not trust us hangs up."""


def test_certificates_are_checked_and_ones_own_authority_may_be_named(tmp_path: Path, keys: dict[str, str]) -> None:
    authority, own = certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    seen: list[tuple[str, str, dict[str, str]]] = []
    server = _Quiet(("127.0.0.1", 0), type("Handler", (Recorder,), {"seen": seen}))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"s3://{BUCKET}/x?endpoint=https://127.0.0.1:{server.server_address[1]}"
    try:
        store = ObjectStorage(parse_address(address), keys)
        error = failure(lambda: store.store("a", b"x"))
        assert isinstance(error, StorageRefused)
        assert error.cause == "InvalidCertificate: UnknownIssuer"
        assert "?ca=" in error.hint
        assert not seen
        ObjectStorage(parse_address(f"{address}&ca={authority}"), keys).delete("a")
        assert [command for command, _, _ in seen] == ["HEAD", "DELETE", "HEAD"]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("status", "final", "cause", "hint"),
    [
        (407, True, "the proxy asks for another login", "HTTPS_PROXY"),
        (502, False, "the proxy does not lead to it", "NO_PROXY"),
    ],
)
@pytest.mark.parametrize("thaws", [False, True])
def test_a_proxy_that_refuses_is_told_as_such(
    status: int, final: bool, cause: str, hint: str, thaws: bool, keys: dict[str, str]
) -> None:
    with served(HttpStub(lambda *_: (status, {}, b""))) as proxy:
        options = f"endpoint=https://store.example&proxy=http://127.0.0.1:{proxy.port}&storage-class=GLACIER"
        store = ObjectStorage(parse_address(f"s3://{BUCKET}/x?{options}"), keys)
        archive = store.archive()
        assert archive is not None
        error = failure(lambda: archive.thaw_state("packs/a") if thaws else store.retrieve("a"))
    assert isinstance(error, StorageRefused) == final
    assert error.cause.startswith(cause)
    assert hint in error.hint


@pytest.mark.parametrize("own", ["", "&ca={authority}"])
def test_a_certificate_that_cannot_be_trusted_is_told_to_who_thaws(
    own: str, tmp_path: Path, keys: dict[str, str]
) -> None:
    authority, certificate = certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    host = "localhost" if own else "127.0.0.1"  # the certificate is for the second name
    with served(HttpStub(lambda *_: (500, {}, b""))) as stub:
        stub.socket = context.wrap_socket(stub.socket, server_side=True, do_handshake_on_connect=False)
        stub.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that does not trust us hangs up
        address = f"s3://{BUCKET}/x?endpoint=https://{host}:{stub.port}&storage-class=GLACIER"
        archive = ObjectStorage(parse_address(address + own.format(authority=authority)), keys).archive()
        assert archive is not None
        error = failure(lambda: archive.thaw_state("packs/a"))
    assert isinstance(error, StorageRefused)
    assert ("the name that" if own else "?ca=") in error.hint
    assert ("localhost" if own else "certificate verify failed") in error.cause
