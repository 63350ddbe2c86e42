"""Settings and credentials, seen by what arrives at the server."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from backstay.errors import InvalidRequest
from backstay.operations.trials.check_storage import check_storage
from backstay.storage.cloud_address import parse_address
from backstay.storage.object_store import ObjectStorage
from backstay.storage.probing import probe_capabilities
from backstay.testing import FakeClock
from tests.cloud.servers import BUCKET, CREDENTIALS, KEY, SECRET, control


class Recorder(BaseHTTPRequestHandler):
    """Says yes to everything, but for what was deleted, and keeps what was asked."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, dict[str, str]]]

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._note(200, hashlib.md5(body, usedforsecurity=False).hexdigest())

    def do_HEAD(self) -> None:
        self._note(404 if any(seen[:2] == ("DELETE", self.path) for seen in self.seen) else 200)

    def do_DELETE(self) -> None:
        self._note(204)

    def _note(self, status: int, tag: str = "x") -> None:
        self.seen.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("ETag", f'"{tag}"')
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Be quiet."""


class Server:
    """Where requests are recorded."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        handler = type("Handler", (Recorder,), {"seen": self.seen})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self.http.server_address[1]}"

    def put(
        self, address: str, environ: Mapping[str, str], clock: FakeClock | None = None, *, name: str = "name"
    ) -> dict[str, str]:
        """The headers, with `path`, of the request that stores an object."""
        self.seen.clear()
        with ObjectStorage(parse_address(address), environ, clock=clock) as store:
            store.store(name, b"data")
        [(path, headers)] = [(path, headers) for command, path, headers in self.seen if command == "PUT"]
        return headers | {"path": path}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def keys(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment with keys in it."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return {**CREDENTIALS, "HOME": str(home)}


def test_a_create_is_conditional_and_carries_its_checksum(server: Server, keys: dict[str, str]) -> None:
    headers = server.put(f"s3://{BUCKET}/x?endpoint={server.endpoint}&region=eu-west-7", keys)
    assert headers["path"] == f"/{BUCKET}/x/name"
    assert headers["if-none-match"] == "*"
    assert headers["x-amz-checksum-sha256"] == "Om6weQ85rIfJTzhWst0sXREOaBFgImGpqSPTuyOtyLc="
    assert headers["content-type"] == "application/octet-stream"
    assert f"Credential={KEY}/" in headers["authorization"]
    assert "/eu-west-7/s3/" in headers["authorization"]


def test_the_storage_class_is_sent(server: Server, keys: dict[str, str]) -> None:
    headers = server.put(f"s3://{BUCKET}/x?endpoint={server.endpoint}&storage-class=STANDARD_IA", keys)
    assert headers["x-amz-storage-class"] == "STANDARD_IA"


def test_objects_are_locked_to_the_end_of_the_last_day(server: Server, keys: dict[str, str]) -> None:
    clock = FakeClock()
    address = f"s3://{BUCKET}/x?endpoint={server.endpoint}&retain-days=30&retain-mode=governance"
    headers = server.put(address, keys, clock, name="packs/ab/one")
    assert headers["x-amz-object-lock-mode"] == "GOVERNANCE"
    until = headers["x-amz-object-lock-retain-until-date"]
    assert until.endswith("T00:00:00Z")
    assert "x-amz-object-lock-mode" in headers["authorization"], "the header is not signed"
    clock.advance(86400)
    again = server.put(address, keys, clock, name="packs/ab/two")
    assert again["x-amz-object-lock-retain-until-date"] > until


@pytest.mark.parametrize(
    ("name", "locked"),
    [
        *((name, True) for name in ("repo.json", "keys/slots/a", "packs/ab/a", "meta/ab/a", "index/a", "snapshots/a")),
        *((name, True) for name in ("drops/a", "holds/a.000001", "tiers/00000001", "log/a", "tier.json")),
        *((name, True) for name in ("attestations/a/b", "graphs/a.deleted", "values/a", "wal/0000000000000001/a")),
        *((name, False) for name in ("sessions/a.000001", "lease/a.000001", "probe/a", "quota/a", "mirror/a")),
        *((name, False) for name in ("gc/00000001", "reserve", "check-0123456789abcdef/0/a", "packs-of-mine/a")),
    ],
)
def test_only_what_must_stay_is_locked(server: Server, keys: dict[str, str], name: str, locked: bool) -> None:
    headers = server.put(f"s3://{BUCKET}/x?endpoint={server.endpoint}&retain-days=30", keys, name=name)
    assert ("x-amz-object-lock-mode" in headers) == locked
    assert ("x-amz-object-lock-retain-until-date" in headers) == locked


def test_locked_objects_cannot_be_removed_for_good(weed: str, keys: dict[str, str]) -> None:
    client = control(weed)
    client.create_bucket(Bucket="locked-bucket", ObjectLockEnabledForBucket=True)
    with ObjectStorage(parse_address(f"s3://locked-bucket/x?endpoint={weed}&retain-days=1"), keys) as store:
        store.store("index/a", b"kept")
        [version] = client.list_object_versions(Bucket="locked-bucket", Prefix="x/index/a")["Versions"]
        store.delete("index/a")
        assert not store.exists("index/a")
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.delete_object(Bucket="locked-bucket", Key="x/index/a", VersionId=version["VersionId"])
    kept = client.get_object(Bucket="locked-bucket", Key="x/index/a", VersionId=version["VersionId"])
    assert kept["Body"].read() == b"kept"


@pytest.mark.long
def test_what_tries_out_a_store_can_be_removed_for_good(weed: str, keys: dict[str, str]) -> None:
    client = control(weed)
    client.create_bucket(Bucket="tried-bucket", ObjectLockEnabledForBucket=True)
    address = f"s3://tried-bucket/x?endpoint={weed}&retain-days=1"
    with ObjectStorage(parse_address(address), keys) as store:
        probe_capabilities(store)
        check_storage(store, size=1 << 20)
    versions = client.list_object_versions(Bucket="tried-bucket")["Versions"]
    assert versions, "nothing was tried"
    for version in versions:
        client.delete_object(Bucket="tried-bucket", Key=version["Key"], VersionId=version["VersionId"])


def test_the_endpoint_and_the_keys_may_come_from_a_profile(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    (home / ".aws").mkdir()
    (home / ".aws/config").write_text(f"[profile work]\nregion = eu-north-9\nendpoint_url = {server.endpoint}\n")
    (home / ".aws/credentials").write_text(
        f"[work]\naws_access_key_id = FROMPROFILE\naws_secret_access_key = {SECRET}\naws_session_token = tok\n"
    )
    headers = server.put(f"s3://{BUCKET}/x", {"HOME": str(home), "AWS_PROFILE": "work"})
    assert "Credential=FROMPROFILE/" in headers["authorization"]
    assert "/eu-north-9/s3/" in headers["authorization"]
    assert headers["x-amz-security-token"] == "tok"


def test_keys_of_the_environment_go_before_a_profile(server: Server, home: Path, keys: dict[str, str]) -> None:
    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text(
        f"[default]\naws_access_key_id = FROMPROFILE\naws_secret_access_key = {SECRET}\n"
    )
    headers = server.put(f"s3://{BUCKET}/x?endpoint={server.endpoint}", keys)
    assert f"Credential={KEY}/" in headers["authorization"]


def test_a_profile_with_a_process_is_asked_through_boto3(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    (program := home / "keys.py").write_text(
        'print(\'{"Version": 1, "AccessKeyId": "FROMPROCESS", "SecretAccessKey": "s"}\')\n'
    )
    (home / ".aws").mkdir()
    (home / ".aws/config").write_text(f"[profile sso]\ncredential_process = {sys.executable} {program}\n")
    environ = {"HOME": str(home), "AWS_PROFILE": "sso"}
    monkeypatch.setenv("AWS_PROFILE", "sso")
    headers = server.put(f"s3://{BUCKET}/x?endpoint={server.endpoint}", environ)
    assert "Credential=FROMPROCESS/" in headers["authorization"]
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(InvalidRequest, match="needs boto3") as caught:
        server.put(f"s3://{BUCKET}/x?endpoint={server.endpoint}", environ)
    assert "pip install boto3" in caught.value.hint


def test_a_profile_that_does_not_exist_is_told(home: Path) -> None:
    with pytest.raises(InvalidRequest, match="no AWS profile nobody"):
        ObjectStorage(parse_address(f"s3://{BUCKET}/x"), {"HOME": str(home), "AWS_PROFILE": "nobody"})


def test_a_file_of_profiles_that_cannot_be_read_keeps_its_secret(home: Path) -> None:
    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text(f"aws_secret_access_key {SECRET}\n")
    with pytest.raises(InvalidRequest) as caught:
        ObjectStorage(parse_address(f"s3://{BUCKET}/x"), {"HOME": str(home)})
    assert SECRET not in f"{caught.value} {caught.value.hint}"


def test_an_endpoint_without_a_scheme_of_http_is_never_spoken_to_in_the_clear(
    server: Server, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    plain = server.endpoint.replace("http://", "https://")
    with pytest.raises(Exception, match="InvalidMessage"):
        server.put(f"s3://{BUCKET}/x?endpoint={plain}", keys)
    assert not server.seen


@pytest.mark.parametrize("by", ["address", "environment"])
def test_a_proxy_is_used(by: str, server: Server, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"s3://{BUCKET}/x?endpoint=http://store.invalid:9000"
    if by == "address":
        address += f"&proxy={server.endpoint}"
    else:
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("HTTP_PROXY", server.endpoint)
        monkeypatch.setenv("http_proxy", server.endpoint)
    assert server.put(address, keys)["path"] == f"http://store.invalid:9000/{BUCKET}/x/name"


def test_the_bucket_may_go_into_the_host_name(server: Server, keys: dict[str, str]) -> None:
    endpoint = "http://store.invalid:9000"
    headers = server.put(f"s3://{BUCKET}/x?endpoint={endpoint}&path-style=false&proxy={server.endpoint}", keys)
    assert headers["path"] == f"http://{BUCKET}.store.invalid:9000/x/name"
