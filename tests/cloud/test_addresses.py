"""Addresses of object stores: what they may say, and that no secret in them is repeated."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backstay.errors import InvalidRequest
from backstay.storage.cloud_address import is_server, parse_address
from backstay.storage.registry import open_backend


@pytest.mark.parametrize(
    ("url", "bucket", "prefix", "shown"),
    [
        ("s3://bucket", "bucket", "", "s3://bucket"),
        ("S3://bucket/", "bucket", "", "s3://bucket"),
        ("az://box/a/b/", "box", "a/b", "az://box/a/b"),
        ("gs://my.bucket/x?storage-class=NEARLINE", "my.bucket", "x", "gs://my.bucket/x?storage-class=NEARLINE"),
        (
            "s3://b/x?region=eu-1&endpoint=https://host:9000",
            "b",
            "x",
            "s3://b/x?endpoint=https://host:9000&region=eu-1",
        ),
    ],
)
def test_addresses(url: str, bucket: str, prefix: str, shown: str) -> None:
    address = parse_address(url)
    assert (address.bucket, address.prefix, str(address)) == (bucket, prefix, shown)


SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    "url",
    [
        f"s3://KEY:{SECRET}@bucket/x",
        f"s3://{SECRET}@bucket/x",
        f"s3://bucket/x?secret={SECRET}",
        f"s3://bucket/x?{SECRET}=1",
        f"s3://bucket/x?{SECRET}",
        f"s3://bucket/x#{SECRET}",
        f"s3://bucket/x?endpoint=https://me:{SECRET}@host",
        f"s3://bucket/x?proxy=http://me:{SECRET}@host",
        f"s3://bucket/x?endpoint=https://host/?sig={SECRET}",
        f"az://container/x?sig={SECRET}&se=2030",
        f"gs://bucket/x?token={SECRET}",
        f"gs://bucket/x?region={SECRET}",  # not an option of this scheme
        f"s3://[{SECRET}/x",
        f"s3://bucket/{SECRET} with spaces",
        "az://container/x",  # no account
        "s3://",
        "s3:///x",
        "s3://bucket/../x",
        "s3://bucket/x?region=",
        "s3://bucket/x?region=a&region=b",
        "s3://bucket/x?endpoint=ftp://host",
        "s3://bucket/x?endpoint=host:9000",
        "s3://bucket/x?endpoint=https://host:99999",
        "s3://bucket/x?endpoint=https://host:port",
        "s3://bucket/x?endpoint=https://:9000",
        "s3://bucket/x?endpoint=https://a%20host",
        "s3://bucket/x?endpoint=https://h%C3%B6st",
        "s3://bucket/x?endpoint=https://xn--a",
        "s3://bucket/x?endpoint=https://256.1.1.1",
        "s3://bucket/x?endpoint=https://[::g]",
        "s3://bucket/x?endpoint=https://127.0.0.1&path-style=false",
        "s3://bucket/x?proxy=http://127.0.0.1:99999",
        "s3://bucket/x?region=eu/west",
        "gs://bucket/x?endpoint=https://host:99999",
        "az://container/x?account=me&endpoint=https://host:99999",
        "az://container/x?account=me%23",
        "s3://bucket/x?path-style=maybe",
        "s3://bucket/x?retain-days=0",
        "s3://bucket/x?retain-days=ten",
        "s3://bucket/x?retain-days=10&retain-mode=strict",
        "s3://bucket/x?ca=/no/such/file.pem",
        "s3://bucket/x?ca=/dev/null",
    ],
)
def test_what_is_wrong_is_refused_and_no_secret_repeated(url: str, home: Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        open_backend(url)
    error = caught.value
    told = f"{error.title} {error.cause} {error.hint}"
    assert "hunter2" not in told
    assert error.hint


@pytest.mark.parametrize("endpoint", ["host:9000", "https://host:99999", "https://a host", f"https://me:{SECRET}@host"])
@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("AWS_ENDPOINT_URL", "s3://bucket/x"),
        ("AWS_ENDPOINT_URL_S3", "s3://bucket/x"),
        ("AZURE_STORAGE_ENDPOINT", "az://container/x?account=me"),
        ("GOOGLE_BASE_URL", "gs://bucket/x"),
    ],
)
def test_an_endpoint_of_the_environment_that_is_no_address_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str, variable: str, url: str
) -> None:
    monkeypatch.setenv(variable, endpoint)
    with pytest.raises(InvalidRequest, match="endpoint is no address") as caught:
        open_backend(url)
    error = caught.value
    assert variable in error.cause
    assert SECRET not in f"{error.cause} {error.hint}"


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
def test_a_key_with_the_end_of_its_line_is_told(home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, f"{SECRET}\n")
    with pytest.raises(InvalidRequest, match=name) as caught:
        open_backend("s3://bucket/x")
    assert SECRET not in f"{caught.value} {caught.value.cause} {caught.value.hint}"


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://host",
        "HTTP://host:9000/",
        "http://my_minio:9000/base/path",
        "https://[::1]:9000",
        "https://10.0.0.1:443",
        "https://s3.example.org.",
        "https://xn--mnchen-3ya.example",
        "https://s3.eu-1.example:",
    ],
)
def test_addresses_of_servers(endpoint: str) -> None:
    assert is_server(endpoint)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("backstay.storage.object_store")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(InvalidRequest, match="obstore") as caught:
        open_backend("s3://bucket/x")
    assert "install" in caught.value.hint


@pytest.mark.parametrize("address", ["az://container/x?retain-days=30", "az://container/x?retain-mode=governance"])
def test_locks_that_nobody_could_extend_are_refused(address: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be locked"):
        parse_address(address)


def test_settings_that_the_driver_refuses_are_told_without_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", f"{SECRET} ")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    with open_backend("az://container/x") as store, pytest.raises(InvalidRequest, match="cannot be used") as caught:
        store.exists("a")
    assert SECRET not in f"{caught.value} {caught.value.cause} {caught.value.hint}"
