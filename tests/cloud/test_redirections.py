"""A store that leads elsewhere: what authorises a request goes to the configured host only."""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from backstay.errors import StorageUnavailable
from backstay.storage.cloud_address import parse_address
from backstay.storage.cloud_redirections import aws_token_hosts, bound_to
from backstay.storage.object_store import ObjectStorage
from tests.cloud.calls import failure
from tests.cloud.servers import CREDENTIALS
from tests.storage.remote.http_stub import HttpStub, Reply, served

TEMPORARY = {**CREDENTIALS, "AWS_SESSION_TOKEN": "a-token"}
AZURE_KEY = {"AZURE_STORAGE_ACCOUNT_KEY": base64.b64encode(b"k" * 32).decode()}
AZURE_SIGNATURE = {"AZURE_STORAGE_SAS_TOKEN": "sv=2023-11-03&sr=c&sp=rwdl&sig=a-signature"}
MISSING: Reply = 404, {}, b""


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)


def serving(reply: Callable[[str, str, dict[str, str]], Reply]) -> AbstractContextManager[HttpStub]:
    return served(HttpStub(reply))


def calls(store: ObjectStorage) -> dict[str, Callable[[], object]]:
    return {
        "stat": lambda: store.stat("a"),
        "retrieve": lambda: store.retrieve("a"),
        "list": lambda: list(store.list()),
        "delete": lambda: store.delete("a"),
        "store": lambda: store.store("a", b"x"),
    }


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("address", "keys"),
    [("s3://box/r?", TEMPORARY), ("az://box/r?account=acc&", AZURE_KEY), ("az://box/r?account=acc&", AZURE_SIGNATURE)],
    ids=["s3", "azure key", "azure signature"],
)
def test_a_request_does_not_follow_to_another_host(
    home: Path, monkeypatch: pytest.MonkeyPatch, address: str, keys: dict[str, str], status: int
) -> None:
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    with serving(lambda *_: MISSING) as other:
        there = {"Location": f"http://localhost:{other.port}/elsewhere"}
        with serving(lambda *_: (status, there, b"")) as server:
            where = parse_address(f"{address}endpoint=http://127.0.0.1:{server.port}")
            for name, call in calls(ObjectStorage(where, {**keys, "HOME": str(home)})).items():
                error = failure(call)
                assert isinstance(error, StorageUnavailable), name
                assert error.transient, name
                if name != "store":  # its body is sent once
                    assert error.cause == "it leads to another server, which is not followed", name
        assert other.requests == []


@pytest.mark.parametrize(
    ("host", "style"),
    [("127.0.0.1", "true"), ("[::1]", "true"), ("[0:0:0::1]", "true"), ("LocalHost", "true"), ("localhost.", "false")],
)
def test_the_endpoint_is_asked_itself_however_it_is_written(
    home: Path, monkeypatch: pytest.MonkeyPatch, host: str, style: str
) -> None:
    for name, value in TEMPORARY.items():
        monkeypatch.setenv(name, value)
    where = parse_address(f"s3://box/r?endpoint=http://{host}:1&path-style={style}")
    error = failure(lambda: ObjectStorage(where, {**TEMPORARY, "HOME": str(home)}).stat("a"))
    assert error.cause in ("Connection refused", "the name of its host is not known")


def test_who_gives_credentials_is_reached_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = b'{"AccessKeyId":"AK","SecretAccessKey":"S","Token":"a-token","Expiration":"2999-01-01T00:00:00Z"}'
    with serving(lambda *_: (200, {}, given)) as container:
        (home / "token").write_text("t")
        environ = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://localhost:{container.port}/?role=x",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(home / "token"),
        }
        monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        seen: list[str | None] = []

        def reply(_method: str, _path: str, headers: dict[str, str]) -> Reply:
            seen.append({name.lower(): value for name, value in headers.items()}.get("x-amz-security-token"))
            return MISSING

        with serving(reply) as server:
            where = parse_address(f"s3://box/r?endpoint=http://127.0.0.1:{server.port}")
            failure(lambda: ObjectStorage(where, {**environ, "HOME": str(home)}).stat("a"))
    assert seen
    assert set(seen) == {"a-token"}


def test_a_proxy_that_is_named_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert bound_to("https://store.example", {}) == {}
    monkeypatch.setenv("no_proxy", "store.example")
    assert bound_to("https://store.example", {})["proxy_excludes"] == "store.example"
    assert bound_to("https://store.example", {}, ["sts.amazonaws.com"]) == {}, "that one may need the proxy"
    assert bound_to("https://store.example", {"proxy_url": "http://other"}) == {"proxy_url": "http://other"}


def test_a_web_identity_is_exchanged_where_amazon_does_it() -> None:
    assert not any(host.startswith("sts.") for host in aws_token_hosts({}, "eu-west-1"))
    found = aws_token_hosts({"AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "AWS_ENDPOINT_URL_STS": "http://["}, "eu-west-1")
    assert {"sts.eu-west-1.amazonaws.com", "sts.amazonaws.com"} < {*found}
