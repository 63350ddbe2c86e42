"""Azure Blob Storage, as Azurite speaks it: the whole contract."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from backstay.errors import InvalidRequest, StorageMissing, StorageRefused, StorageUnavailable
from backstay.storage.azure_uploads import upload_credentials
from backstay.storage.backend import Capabilities, StorageBackend
from backstay.storage.probing import probe_capabilities
from backstay.storage.registry import open_backend
from backstay.testing import FakeClock, StorageConformance
from tests.cloud.azurite_server import ACCOUNT, ACCOUNT_KEY, CREDENTIALS, azurite
from tests.cloud.damaging_proxy import Damage, damaging_proxy
from tests.cloud.servers import BUCKET

BODY = b"what is sent " * 1000


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with azurite(tmp_path_factory.mktemp("azurite") / "server") as found:
        yield found


@pytest.fixture
def backend(endpoint: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> StorageBackend:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return open_backend(f"az://{BUCKET}/{secrets.token_hex(8)}?endpoint={endpoint}")


class TestAzurite(StorageConformance):
    """Nothing differs from other stores."""


def test_the_probe_finds_what_a_repository_needs(backend: StorageBackend) -> None:
    assert probe_capabilities(backend) == Capabilities(checksums=True)


def test_a_missing_container_is_told_as_such(backend: StorageBackend, endpoint: str) -> None:
    missing = open_backend(f"az://no-such-container/x?endpoint={endpoint}")
    calls: dict[str, Callable[[], object]] = {
        "list": lambda: list(missing.list()),
        "stat": lambda: missing.stat("a"),
        "retrieve": lambda: missing.retrieve("a"),
        "delete": lambda: missing.delete("a"),
        "store": lambda: missing.store("a", b"x"),
    }
    for call in calls.values():
        with pytest.raises(StorageMissing, match="the container no-such-container is not there"):
            call()


def test_a_wrong_key_is_refused(endpoint: str, backend: StorageBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    wrong = open_backend(backend.url)
    with pytest.raises(StorageRefused) as caught:
        wrong.store("a", b"x")
    assert "d3Jvbmc" not in f"{caught.value} {caught.value.hint}"


def test_a_connection_string_is_enough(endpoint: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={endpoint}/;"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    with open_backend(f"az://{BUCKET}/{secrets.token_hex(8)}") as store:
        store.store("a", b"x")
        assert store.retrieve("a") == b"x"


# --- the sum that uploads carry ---


@pytest.fixture
def damaging(endpoint: str, backend: StorageBackend) -> Iterator[tuple[StorageBackend, Damage]]:
    """The same place, reached through a proxy that can change a byte of what is sent."""
    with damaging_proxy(urlsplit(endpoint).port or 0) as damage:
        address = backend.url.replace(f":{urlsplit(endpoint).port}/", f":{damage.port}/")
        with open_backend(address) as store:
            yield store, damage


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_body_that_was_damaged_on_its_way_is_refused(
    damaging: tuple[StorageBackend, Damage], backend: StorageBackend, overwrite: bool
) -> None:
    store, damage = damaging
    store.store("packs/a", BODY, overwrite=overwrite)
    damage.on = True
    with pytest.raises(StorageUnavailable, match="400"):  # Azure itself says Md5Mismatch, which is tried again
        store.store("packs/b", BODY, overwrite=overwrite)
    assert damage.done == 1
    assert [info.name for info in backend.list()] == ["packs/a"]
    damage.on = False
    store.store("packs/b", BODY)
    assert backend.retrieve("packs/b") == BODY


def test_a_shared_access_signature_is_used_as_it_is(
    damaging: tuple[StorageBackend, Damage], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, damage = damaging
    signature = _account_signature()
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", signature)
    with open_backend(store.url) as signed:
        signed.store("a", BODY)
        assert signed.retrieve("a") == BODY
        damage.on = True
        with pytest.raises(StorageUnavailable):
            signed.store("b", BODY)


def test_a_key_that_is_no_key_is_told_without_it(backend: StorageBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "no key!")
    with pytest.raises((InvalidRequest, StorageUnavailable)) as caught, open_backend(backend.url) as store:
        store.store("a", BODY)
    assert "no key!" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("environ", "sends"),
    [
        ({"AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY}, True),
        ({"AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=x"}, True),
        ({"AZURE_STORAGE_TOKEN": "a-token", "AZURE_CLIENT_SECRET": "x"}, True),
        ({"AZURE_CLIENT_SECRET": "x", "AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=x"}, False),
        ({"AZURE_FEDERATED_TOKEN_FILE": "/token"}, False),
        ({}, False),  # the machine's managed identity
    ],
)
def test_a_sum_is_sent_where_no_token_has_to_be_fetched_for_it(environ: dict[str, str], sends: bool) -> None:
    assert (upload_credentials(BUCKET, {}, environ, FakeClock()) is not None) is sends


def test_an_address_that_may_write_ends_soon_and_lets_clocks_differ() -> None:
    found = upload_credentials(BUCKET, {"account_name": ACCOUNT, "account_key": ACCOUNT_KEY}, {}, FakeClock())
    assert found is not None
    assert found.provider is not None
    query = dict(found.provider()["sas_token"])  # type: ignore[arg-type] # pairs
    assert (query["st"], query["se"]) == ("2025-12-31T23:30:00Z", "2026-01-01T02:00:00Z")
    assert (query["sr"], query["sp"]) == ("c", "cw")


def _account_signature() -> str:
    """What the Azure portal gives out: good for everything in the account's blobs."""
    fields = {"sp": "rwdlac", "ss": "b", "srt": "sco", "st": "", "se": "2099-01-01T00:00:00Z", "sip": "", "spr": ""}
    fields |= {"sv": "2021-12-02"}
    signed = "\n".join([ACCOUNT, *fields.values(), "", ""])
    digest = hmac.digest(base64.b64decode(ACCOUNT_KEY), signed.encode(), hashlib.sha256)
    given = {name: value for name, value in fields.items() if value}
    return urlencode({**given, "sig": base64.b64encode(digest).decode()})


def test_the_access_tier_is_sent(backend: StorageBackend, endpoint: str) -> None:
    address = f"az://{BUCKET}/{secrets.token_hex(8)}?endpoint={endpoint}&storage-class="
    with open_backend(address + "Cool") as cool, open_backend(address + "NoSuchTier") as wrong:
        cool.store("a", b"x")
        assert cool.retrieve("a") == b"x"
        with pytest.raises(StorageUnavailable, match="400"):
            wrong.store("b", b"x")
