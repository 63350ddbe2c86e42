"""obstore's clients for one address: by cloud, and by how long a transfer may take.

obstore's `timeout` covers a whole request with its body, and its `read_timeout` runs during an upload too. So a small
object and a large one need clients of their own, and so do uploads and downloads.
"""

from __future__ import annotations

import hashlib
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from backstay.core.clock import Clock
from backstay.core.environment import expanded_if_known
from backstay.errors import InvalidRequest
from backstay.storage.azure_uploads import upload_credentials
from backstay.storage.backend import Buffer
from backstay.storage.cloud_address import CloudAddress, is_server, is_word
from backstay.storage.cloud_credentials import AwsProfile, aws_keys, aws_provider, azure_settings
from backstay.storage.cloud_redirections import aws_token_hosts, bound_to
from backstay.storage.patience import Patience
from backstay.storage.retention import locked_until

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

CloudStore: TypeAlias = S3Store | AzureStore | GCSStore

CONTENT_TYPE: Final = "application/octet-stream"
_NO_RETRIES: Final[RetryConfig] = {"max_retries": 0, "retry_timeout": timedelta(0)}  # one wrapper does it for all
_CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"
USUAL: Final = 20 << 20  # bytes; hardly any object is larger
_STEPS: Final = (1 << 20, USUAL, 320 << 20, 5 << 30)  # bytes; what one class of transfers holds at most


@dataclass(frozen=True, slots=True)
class _Kind:
    """Which client: for uploads or not, up to how many bytes, objects locked until when, claiming which checksum."""

    upload: bool
    limit: int
    locked_until: str
    checksum: str


class CloudClients:
    """Clients of one address, made when they are first needed. Any thread may ask."""

    def __init__(
        self,
        address: CloudAddress,
        environ: Mapping[str, str],
        *,
        clock: Clock,
        patience: Patience,
    ) -> None:
        self._address, self._clock, self._patience = address, clock, patience
        self._make, self._sends_md5 = _MAKERS[address.scheme](address, environ, clock)
        self._root = _certificates(address.get("ca"))
        self._retention = retention_of(address)
        self._clients: dict[_Kind, CloudStore] = {}
        self._lock = threading.Lock()

    def for_reading(self, size: int = 0) -> CloudStore:
        """For requests without a body whose answer has so many bytes."""
        return self._client(_Kind(False, _class(size), "", ""))

    def for_storing(self, size: int, *, lock: bool = False, checksum: str = "") -> CloudStore:
        """For a body of so many bytes, locked if the address says for how long.

        With a `checksum` (see `checksum_of`) that is claimed, whatever the body is, by a client for this body alone.
        """
        kind = _Kind(True, _class(size), self._locked_until() if lock else "", checksum)
        return self._new_client(kind, claims_checksum=True) if checksum else self._client(kind)

    def checksum_of(self, body: Buffer, *, always: bool = False) -> str:
        """What the store can be told to check a body by, in base64: "" if nothing, or if obstore tells it by itself.

        `always` asks for it also in the latter case.
        """
        if self._sends_md5:
            return b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        if always and self._address.scheme == "s3":
            return b64encode(hashlib.sha256(body).digest()).decode()
        return ""

    def _client(self, kind: _Kind) -> CloudStore:
        with self._lock:
            if kind not in self._clients:
                self._clients[kind] = self._new_client(kind, claims_checksum=False)
            return self._clients[kind]

    def _new_client(self, kind: _Kind, *, claims_checksum: bool) -> CloudStore:
        try:
            return self._make(self._options(kind), claims_checksum)
        except BaseError:  # its text may repeat a secret
            raise InvalidRequest(
                f"the settings for {self._address} cannot be used",
                cause="its driver refuses one of them",
                hint="check the options of the address, and the variables and files that have the credentials",
            ) from None

    def _options(self, kind: _Kind) -> ClientConfig:
        patience, headers = self._patience, {}
        if kind.locked_until:
            vendor = "goog" if self._address.scheme == "gs" else "amz"
            headers[f"x-{vendor}-object-lock-mode"] = self._retention[1]
            headers[f"x-{vendor}-object-lock-retain-until-date"] = kind.locked_until
        if kind.checksum:
            headers["Content-MD5" if self._sends_md5 else "x-amz-checksum-sha256"] = kind.checksum
        options: ClientConfig = {
            "connect_timeout": timedelta(seconds=patience.connect),
            "timeout": timedelta(seconds=patience.for_transfer(kind.limit)),
            "allow_invalid_certificates": False,
            "default_content_type": CONTENT_TYPE,
            "user_agent": "backstay",
        }
        if not kind.upload:
            options["read_timeout"] = timedelta(seconds=patience.silence)
        if headers:
            options["default_headers"] = headers
        if self._root:
            options["root_certificate"] = self._root
        if proxy := self._address.get("proxy"):
            options["proxy_url"] = proxy
        return options

    def _locked_until(self) -> str:
        """The same for a whole day, so that one client serves for it."""
        days, _ = self._retention
        return locked_until(self._clock.now(), days).strftime("%Y-%m-%dT%H:%M:%SZ") if days else ""


_Make: TypeAlias = "Callable[[ClientConfig, bool], CloudStore]"  # the flag: its headers claim a checksum
_Maker: TypeAlias = tuple[_Make, bool]  # the flag: uploads may carry a Content-MD5


def _class(size: int) -> int:
    """The bound of the class that a transfer belongs to; no store takes more than the last one in one request."""
    return next((step for step in _STEPS if size <= step), _STEPS[-1])


def _certificates(path: str | None) -> str:
    """The certificates of a file, read once. InvalidRequest when there are none."""
    if path is None:
        return ""
    try:
        text = expanded_if_known(path).read_text()
        if _CERTIFICATE not in text:
            raise ValueError("there is no certificate in it")
        ssl.create_default_context(cadata=text)
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"{path} holds no certificates", cause=str(error), hint="give a file in PEM form: ca=/path/to/ca.pem"
        ) from error
    return text


def retention_of(address: CloudAddress) -> tuple[int, str]:
    """For how many days objects are locked (0: not at all), and how."""
    days, mode = address.get("retain-days"), (address.get("retain-mode") or "compliance").upper()
    if mode not in ("COMPLIANCE", "GOVERNANCE"):
        raise InvalidRequest("retain-mode is wrong", hint="write retain-mode=compliance or retain-mode=governance")
    if days is None:
        return 0, mode
    if not (days.isascii() and days.isdigit() and 1 <= int(days) <= 36500):
        raise InvalidRequest("retain-days is no number of days", hint="write for example retain-days=30")
    return int(days), mode


def _s3(address: CloudAddress, environ: Mapping[str, str], clock: Clock) -> _Maker:
    del clock
    profile = AwsProfile(environ)
    endpoint = (
        address.get("endpoint")
        or environ.get("AWS_ENDPOINT_URL_S3")
        or environ.get("AWS_ENDPOINT_URL")
        or profile.get("endpoint_url")
        or ""
    ).rstrip("/")
    _check_endpoint(endpoint, "AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or a profile")
    settings: dict[str, Any] = {**aws_keys(profile, environ), **_style(address, endpoint)}
    settings["region"] = _checked_word(
        "region",
        address.get("region")
        or environ.get("AWS_REGION")
        or environ.get("AWS_DEFAULT_REGION")
        or profile.get("region")
        or "us-east-1",
    )
    provider = aws_provider(profile, environ)
    has_keys = provider is not None or "access_key_id" in settings or bool(environ.get("AWS_ACCESS_KEY_ID"))
    others = () if has_keys else aws_token_hosts(environ, settings["region"])

    def make(options: ClientConfig, claims_checksum: bool) -> CloudStore:
        own: dict[str, Any] = settings if claims_checksum else {**settings, "checksum_algorithm": "SHA256"}
        return S3Store(
            address.bucket,
            client_options=bound_to(settings.get("endpoint", ""), _with_http(options, endpoint), others),
            retry_config=_NO_RETRIES,
            credential_provider=provider,
            conditional_put="etag",
            disable_bulk_delete=True,
            **own,
        )

    return make, False


def _style(address: CloudAddress, endpoint: str) -> dict[str, Any]:
    """Where the bucket's name goes: into the host name at AWS, into the path elsewhere, or as the address says.

    A certificate for `*.host` does not fit a bucket with dots in its name.
    """
    given = address.get("path-style")
    if given not in (None, "true", "false"):
        raise InvalidRequest("path-style is wrong", hint="write path-style=true or path-style=false")
    in_path = given == "true" or (given is None and (bool(endpoint) or "." in address.bucket))
    if not endpoint:
        return {"virtual_hosted_style_request": not in_path}
    if not in_path:
        scheme, _, host = endpoint.partition("://")
        endpoint = f"{scheme}://{address.bucket}.{host}"
        if not is_server(endpoint):
            raise InvalidRequest(
                "the bucket's name cannot go into the host name of this endpoint", hint="write path-style=true"
            )
    # obstore prefers the second key, also when it has only read it from the environment.
    return {"virtual_hosted_style_request": not in_path, "endpoint": endpoint, "aws_endpoint_url_s3": endpoint}


def _az(address: CloudAddress, environ: Mapping[str, str], clock: Clock) -> _Maker:
    settings: dict[str, Any] = azure_settings(environ)
    if account := address.get("account") or environ.get("AZURE_STORAGE_ACCOUNT"):
        settings["account_name"] = _checked_word("account", account)
    if not settings.get("account_name") and not environ.get("AZURE_STORAGE_ACCOUNT_NAME"):
        raise InvalidRequest(
            "the storage account is not named",
            cause="neither the address nor the environment has it",
            hint="write az://CONTAINER/PREFIX?account=NAME, or set AZURE_STORAGE_ACCOUNT_NAME",
        )
    given = address.get("endpoint") or environ.get("AZURE_STORAGE_ENDPOINT") or environ.get("AZURE_ENDPOINT")
    if given:
        settings["endpoint"] = given.rstrip("/")
    endpoint = settings.get("endpoint", "")
    _check_endpoint(endpoint, "AZURE_STORAGE_ENDPOINT, AZURE_ENDPOINT or AZURE_STORAGE_CONNECTION_STRING")
    uploads = upload_credentials(address.bucket, settings, environ, clock)

    def make(options: ClientConfig, claims_checksum: bool) -> CloudStore:
        found = _with_http(options, endpoint)
        return AzureStore(
            address.bucket,
            client_options=found if uploads is None else bound_to(endpoint, found),  # else it fetches tokens
            retry_config=_NO_RETRIES,
            credential_provider=uploads.provider if uploads is not None and claims_checksum else None,
            **settings,
        )

    return make, uploads is not None


def _gs(address: CloudAddress, environ: Mapping[str, str], clock: Clock) -> _Maker:
    del clock
    endpoint = (address.get("endpoint") or environ.get("GOOGLE_BASE_URL") or "").rstrip("/")
    _check_endpoint(endpoint, "GOOGLE_BASE_URL")
    settings: dict[str, Any] = {"base_url": endpoint} if endpoint else {}

    def make(options: ClientConfig, claims_checksum: bool) -> CloudStore:
        del claims_checksum
        return GCSStore(
            address.bucket, client_options=_with_http(options, endpoint), retry_config=_NO_RETRIES, **settings
        )

    return make, False  # it tells the sum of what it received


def _check_endpoint(endpoint: str, where: str) -> None:
    if endpoint and not is_server(endpoint):
        raise InvalidRequest(
            "the endpoint is no address",
            cause=f"it comes from {where}",
            hint="write https://HOST:PORT",
        )


def _checked_word(what: str, value: str) -> str:
    if not is_word(value):
        raise InvalidRequest(
            f"the {what} has an odd name", hint=f"write ?{what}=NAME with letters, digits, dots and hyphens"
        )
    return value


def _with_http(options: ClientConfig, endpoint: str) -> ClientConfig:
    """Without TLS only where the endpoint says so itself, whatever the environment allows."""
    return {**options, "allow_http": endpoint.lower().startswith("http://")}


_MAKERS: Final = {"s3": _s3, "az": _az, "gs": _gs}
