"""Locks and holds of Google Cloud Storage, on our own server, which follows the documentation of the interface."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from backstay.errors import InvalidRequest, ObjectNotFound, StorageMissing, StorageRefused, StorageUnavailable
from backstay.storage.cloud_address import parse_address
from backstay.storage.object_store import ObjectStorage
from backstay.storage.retention import LockState, Retention, locked_until, must_stay
from tests.cli.conftest import Account
from tests.cloud.google_server import CREDENTIALS, TOKEN, Bucket, google
from tests.cloud.servers import BUCKET
from tests.storage.remote.http_stub import HttpStub, served

NAME = "packs/ab/one"
Open = Callable[..., ObjectStorage]


@pytest.fixture
def server() -> Iterator[tuple[str, Bucket]]:
    with google() as found:
        yield found


@pytest.fixture
def bucket(server: tuple[str, Bucket]) -> Bucket:
    return server[1]


@pytest.fixture
def gs(server: tuple[str, Bucket], home: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens a place with locks."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)

    def open_(options: str = "", environ: dict[str, str] = CREDENTIALS, bucket: str = BUCKET) -> ObjectStorage:
        address = f"gs://{bucket}/r?endpoint={server[0]}&retain-days=10{options}"
        return ObjectStorage(parse_address(address), {"HOME": str(home), **environ})

    return open_


def locks_of(store: ObjectStorage) -> Retention:
    found = store.retention()
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def one_day() -> None:
    """Locks end with a day: what a test compares must not lie on both sides of midnight."""
    while (now := datetime.now(UTC)).hour == 23 and now.minute == 59:
        time.sleep(1)


def days_from_now(days: int) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)


def test_what_must_stay_is_locked_with_the_upload(gs: Open, bucket: Bucket) -> None:
    store = gs()
    store.store(NAME, b"kept")
    store.store("probe/a", b"x")
    until = locked_until(datetime.now(UTC), 10).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert bucket.locks[f"r/{NAME}"] == {"retention": {"mode": "Locked", "retainUntilTime": until}}
    assert bucket.locks["r/probe/a"] == {}
    gs("&retain-mode=governance").store("index/a", b"x")
    assert bucket.locks["r/index/a"]["retention"]["mode"] == "Unlocked"


def test_a_lock_is_seen_and_extended_and_never_shortened(gs: Open) -> None:
    store = gs()
    store.store(NAME, b"kept")
    locks = locks_of(store)
    assert locks.days == 10
    assert locks.state(NAME) == LockState(until=locked_until(datetime.now(UTC), 10))
    locks.extend(NAME, later := days_from_now(30))
    assert locks.state(NAME).until == later
    locks.extend(NAME, days_from_now(20))
    assert locks.state(NAME).until == later


def test_a_lock_of_another_mode_is_extended_as_it_is(gs: Open, bucket: Bucket) -> None:
    gs().store(NAME, b"kept")
    locks = locks_of(gs("&retain-mode=governance"))
    locks.extend(NAME, later := days_from_now(30))
    assert locks.state(NAME).until == later
    assert bucket.locks[f"r/{NAME}"]["retention"]["mode"] == "Locked"


def test_a_hold_comes_and_goes(gs: Open) -> None:
    store = gs()
    store.store("probe/a", b"x")
    locks = locks_of(store)
    assert locks.state("probe/a") == LockState()
    for _ in range(2):
        locks.hold("probe/a", on=True)
    assert locks.state("probe/a") == LockState(held=True)
    locks.hold("probe/a", on=False)
    assert locks.state("probe/a") == LockState()


def test_what_is_wrong_is_told(gs: Open, bucket: Bucket) -> None:
    store = gs()
    store.store("probe/a", b"x")
    with pytest.raises(ObjectNotFound):
        locks_of(store).state(NAME)
    with pytest.raises(StorageMissing, match="no-such-bucket"):
        locks_of(gs(bucket="no-such-bucket")).state(NAME)
    with pytest.raises(StorageRefused):
        locks_of(gs(environ={"GOOGLE_BEARER_TOKEN": "wrong"})).state("probe/a")
    bucket.takes_locks = False
    with pytest.raises(InvalidRequest) as caught:
        locks_of(store).extend("probe/a", days_from_now(1))
    assert "object retention" in caught.value.hint


def test_a_bucket_without_object_retention_is_told(gs: Open, bucket: Bucket) -> None:
    store = gs()
    store.store("probe/a", b"x")
    locks_of(store).try_out("probe/a")
    assert bucket.locks["r/probe/a"]["retention"]
    bucket.takes_locks = False
    with pytest.raises(InvalidRequest):
        locks_of(store).try_out("probe/a")
    with pytest.raises(StorageRefused) as caught:
        store.store(NAME, b"kept")
    assert "made without object retention" in caught.value.cause


def test_without_versions_a_delete_of_what_is_locked_is_refused_with_a_hint(gs: Open, bucket: Bucket) -> None:
    store = gs()
    store.store(NAME, b"kept")
    bucket.versioned = False
    with pytest.raises(StorageRefused) as caught:
        store.delete(NAME)
    assert "Object Versioning" in caught.value.hint


# --- tokens


@pytest.fixture
def tokens() -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """The address of a token service, and what it was asked: path, and the form."""
    asked: list[tuple[str, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._give({name: values[0] for name, values in parse_qs(body).items()})

        def do_GET(self) -> None:
            self._give(dict(self.headers))

        def _give(self, form: dict[str, str]) -> None:
            asked.append((self.path, form))
            body = json.dumps({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            """Be quiet."""

    service = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=service.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{service.server_address[1]}", asked
    service.shutdown()
    service.server_close()
    thread.join()


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


def seen(store: ObjectStorage, bucket: Bucket) -> LockState:
    """What is asked with the credentials of the store, twice; the token is asked for once."""
    bucket.objects["r/probe/a"] = (b"x", 0.0, "STANDARD")
    locks = locks_of(store)
    locks.state("probe/a")
    return locks.state("probe/a")


def test_a_service_account_signs_for_its_token(
    gs: Open, bucket: Bucket, tokens: tuple[str, list[tuple[str, dict[str, str]]]], key: RSAPrivateKey, home: Path
) -> None:
    host, asked = tokens
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {"type": "service_account", "client_email": "me@example", "private_key": pem, "private_key_id": "1"}
    (home / "key.json").write_text(json.dumps({**account, "token_uri": f"http://{host}/token"}))
    assert seen(gs(environ={"GOOGLE_APPLICATION_CREDENTIALS": str(home / "key.json")}), bucket) == LockState()
    [(path, form)] = asked
    assert (path, form["grant_type"]) == ("/token", "urn:ietf:params:oauth:grant-type:jwt-bearer")
    signed, _, signature = form["assertion"].rpartition(".")
    decoded = [base64.urlsafe_b64decode(part + "==") for part in (*signed.split("."), signature)]
    key.public_key().verify(decoded[2], signed.encode(), PKCS1v15(), SHA256())
    assert json.loads(decoded[0]) == {"alg": "RS256", "typ": "JWT", "kid": "1"}
    claims = json.loads(decoded[1])
    assert (claims["iss"], claims["aud"], claims["exp"] - claims["iat"]) == ("me@example", f"http://{host}/token", 3600)
    assert claims["scope"].endswith("devstorage.full_control")


def test_a_login_of_the_tools_is_refreshed(
    gs: Open, bucket: Bucket, tokens: tuple[str, list[tuple[str, dict[str, str]]]], home: Path
) -> None:
    host, asked = tokens
    (home / ".config/gcloud").mkdir(parents=True)
    login = {"type": "authorized_user", "client_id": "id", "client_secret": "hush", "refresh_token": "again"}
    (home / ".config/gcloud/application_default_credentials.json").write_text(
        json.dumps({**login, "token_uri": f"http://{host}/token"})
    )
    seen(gs(environ={}), bucket)
    [(_, form)] = asked
    assert form == {"grant_type": "refresh_token", "client_id": "id", "client_secret": "hush", "refresh_token": "again"}


def test_a_machine_asks_its_metadata_service(
    gs: Open, bucket: Bucket, tokens: tuple[str, list[tuple[str, dict[str, str]]]]
) -> None:
    host, asked = tokens
    seen(gs(environ={"GCE_METADATA_HOST": host}), bucket)
    [(path, headers)] = asked
    assert path.endswith("/service-accounts/default/token")
    assert headers["Metadata-Flavor"] == "Google"


@pytest.mark.parametrize(
    "text",
    ["{", '{"type": "external_account"}', '{"type": "service_account", "private_key": "hush"}', "[]", "[" * 100_000],
)
def test_credentials_that_cannot_be_used_are_told_without_being_repeated(gs: Open, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        locks_of(gs(environ={"GOOGLE_SERVICE_ACCOUNT_KEY": text})).state(NAME)
    assert "hush" not in f"{caught.value} {caught.value.cause} {caught.value.hint}"


# --- whole repositories


def test_a_repository_is_locked_held_extended_and_collected(
    account: Account, server: tuple[str, Bucket], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    endpoint, bucket = server
    root = secrets.token_hex(4)
    address = f"gs://{BUCKET}/{root}?endpoint={endpoint}&retain-days=10"
    account.run("-r", address, "init")
    first = account.json("-r", address, "backup", account.documents)["snapshot"]
    for key in bucket.objects:
        assert ("retention" in bucket.locks[key]) == must_stay(key.removeprefix(f"{root}/")), key
    assert account.json("-r", address, "retain")["due"] == 0
    longer = address.replace("retain-days=10", "retain-days=30")
    assert account.json("-r", longer, "retain")["extended"] > 5
    assert account.json("-r", longer, "retain")["due"] == 0
    assert account.json("-r", address, "hold", "set", first)["objects"] > 5
    assert bucket.locks[f"{root}/snapshots/{first}"]["temporaryHold"]
    account.run("-r", address, "hold", "clear", first)
    account.run("-r", address, "delete", first)
    result = account.json("-r", address, "gc", "--allow-empty")
    assert (result["freed_bytes"], result["retained_packs"] >= 2) == (0, True)
    assert [key for key in bucket.noncurrent if "/packs/" in key]


@pytest.fixture
def answering(home: Path) -> Iterator[tuple[HttpStub, list[bytes]]]:
    """A server that answers everything with what the list ends with."""
    said = [b"{}"]
    with served(HttpStub(lambda *_: (200, {"Content-Type": "application/json"}, said[-1]))) as stub:
        yield stub, said


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"retention":{"retainUntilTime":"0001-01-01T00:00:00+23:59"}}',
        b'{"retention":{"retainUntilTime":"9999-12-31T23:59:59-23:59"}}',
        b'{"retention":{"retainUntilTime":"2030-01-01T00:00:00+99:99"}}',
    ],
    ids=lambda body: body[:60],
)
def test_an_answer_about_a_lock_that_cannot_be_read_is_told(
    answering: tuple[HttpStub, list[bytes]], home: Path, body: bytes
) -> None:
    stub, said = answering
    said.append(body)
    address = parse_address(f"gs://box/r?endpoint=http://127.0.0.1:{stub.port}&retain-days=3")
    retention = locks_of(ObjectStorage(address, {"HOME": str(home), "GOOGLE_BEARER_TOKEN": "t"}))
    with pytest.raises(StorageUnavailable, match="cannot see the lock"):
        retention.state(NAME)


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "1" + "0" * 400, '"60"'])
def test_a_token_that_is_good_for_no_number_of_seconds_is_none(
    answering: tuple[HttpStub, list[bytes]], home: Path, seconds: str
) -> None:
    stub, said = answering
    said.append(f'{{"access_token":"t","expires_in":{seconds}}}'.encode())
    server = f"127.0.0.1:{stub.port}"
    address = parse_address(f"gs://box/r?endpoint=http://{server}&retain-days=3")
    retention = locks_of(ObjectStorage(address, {"HOME": str(home), "GCE_METADATA_HOST": server}))
    with pytest.raises(StorageRefused, match="no credentials"):
        retention.state(NAME)
