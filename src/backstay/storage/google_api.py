"""What Google Cloud Storage can do besides storing, through its JSON interface: obstore has no calls for it.

obstore keeps its tokens to itself, so they are asked for here, with the same credentials: GOOGLE_BEARER_TOKEN, a file
of the kinds `service_account` and `authorized_user`, or the metadata service of the machine.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from backstay.core.clock import Clock
from backstay.core.environment import expanded_if_known
from backstay.errors import InvalidRequest, ObjectNotFound, StorageMissing, StorageRefused, StorageUnavailable
from backstay.storage.cloud_address import CloudAddress
from backstay.storage.tls import client_context
from backstay.trust.rs256 import sign_rs256

_ENDPOINT: Final = "https://storage.googleapis.com"
_TOKENS: Final = "https://oauth2.googleapis.com/token"
_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.full_control"  # extending locks is not in read_write
_METADATA: Final = "/computeMetadata/v1/instance/service-accounts/default/token"
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_WAIT_S: Final = 60.0
_LEFT_S: Final = 60.0  # a token that is good for less is replaced
_FOREVER_S: Final = 1e9
_LARGEST: Final = 1 << 20  # bytes of an answer
_FILES: Final = ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_APPLICATION_CREDENTIALS")
_LOGIN: Final = ".config/gcloud/application_default_credentials.json"
_CREDENTIALS: Final = "check the credentials, and that they may get and update objects and set their retention"


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: dict[str, Any]

    @property
    def reason(self) -> str:
        """The code of an error, such as `notFound`; never its text, which may repeat what was sent."""
        error = self.body.get("error")
        errors = error.get("errors") if isinstance(error, dict) else None
        first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
        return str(first.get("reason", ""))[:80]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The token is for one server, and would go along."""

    def redirect_request(self, *_: object) -> None:
        return None


class GoogleApi:
    """Objects of one bucket, below one prefix. Any thread may call it."""

    def __init__(self, address: CloudAddress, environ: Mapping[str, str], clock: Clock) -> None:
        self._bucket = address.bucket
        self._root = f"{address.prefix}/" if address.prefix else ""
        endpoint = (address.get("endpoint") or environ.get("GOOGLE_BASE_URL") or _ENDPOINT).rstrip("/")
        self._place = f"{endpoint}/storage/v1/b/{quote(address.bucket, safe='')}/o"
        self._environ, self._clock = environ, clock
        ca = address.get("ca")
        context = client_context()
        if ca is not None:
            context.load_verify_locations(expanded_if_known(ca))
        proxy = address.get("proxy")
        proxies = urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else None)
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), proxies, _NoRedirects()
        )
        self._token, self._good_until = "", 0.0
        self._lock = threading.Lock()

    def get(self, title: str, name: str, fields: str) -> dict[str, Any]:
        """Some of what is known of an object. Raises as `patch` does."""
        return self._object(title, "GET", name, {"fields": fields}, None)

    def patch(self, title: str, name: str, change: Mapping[str, object]) -> None:
        """Change what is known of an object.

        Raises ObjectNotFound, InvalidRequest for what the bucket does not take, StorageMissing, StorageRefused,
        StorageUnavailable.
        """
        self._object(title, "PATCH", name, {"fields": "name"}, change)

    def _object(
        self, title: str, method: str, name: str, query: Mapping[str, str], body: Mapping[str, object] | None
    ) -> dict[str, Any]:
        reply = self._authorized(title, method, f"{self._place}/{quote(self._root + name, safe='')}", query, body)
        if reply.status == 404:
            # The code is the same for a bucket that is missing, and a listing needs no right that objects do not.
            if self._authorized(title, "GET", self._place, {"maxResults": "1", "fields": "kind"}, None).status == 404:
                raise StorageMissing(
                    f"the bucket {self._bucket} cannot be seen", cause=f"it answered 404 {reply.reason}"
                )
            raise ObjectNotFound(name)
        if reply.status in (401, 403):
            raise StorageRefused(title, cause=_told(reply), hint=_CREDENTIALS)
        if reply.status in (400, 412):
            hint = "the bucket must have been made with object retention, and have Object Versioning"
            raise InvalidRequest(title, cause=_told(reply), hint=hint)
        if reply.status != 200:
            raise StorageUnavailable(title, cause=_told(reply))
        return reply.body

    def _authorized(
        self, title: str, method: str, url: str, query: Mapping[str, str], body: Mapping[str, object] | None
    ) -> _Reply:
        headers = {"Authorization": f"Bearer {self._bearer()}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        return self._send(title, urllib.request.Request(f"{url}?{urlencode(query)}", data, headers, method=method))  # noqa: S310 - the scheme is that of a checked address

    def _send(self, title: str, request: urllib.request.Request) -> _Reply:
        """The answer, whatever its status. Raises StorageUnavailable without one that can be understood."""
        try:
            try:
                with self._opener.open(request, timeout=_WAIT_S) as answer:
                    status, data = answer.status, _whole(answer)
            except urllib.error.HTTPError as refused:
                with refused:
                    status, data = refused.code, _whole(refused)
            body = json.loads(data or b"{}")
        except (OSError, ValueError, RecursionError, HTTPException) as error:
            raise StorageUnavailable(title, cause=type(error).__name__) from error
        return _Reply(status, body if isinstance(body, dict) else {})

    # --- tokens ---

    def _bearer(self) -> str:
        with self._lock:
            if self._clock.monotonic() >= self._good_until:
                self._token, seconds = self._new_token()
                self._good_until = self._clock.monotonic() + seconds - _LEFT_S
            return self._token

    def _new_token(self) -> tuple[str, float]:
        """A token, and for how many seconds it is good."""
        if given := self._environ.get("GOOGLE_BEARER_TOKEN"):
            return given, float("inf")
        found = self._credentials()
        if found is None:
            host = self._environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
            url, headers = f"http://{host}{_METADATA}", {"Metadata-Flavor": "Google"}
            return self._ask_token(urllib.request.Request(url, headers=headers))
        if found.get("type") == "authorized_user":
            form = {"grant_type": "refresh_token"}
            form |= {key: str(found.get(key, "")) for key in ("client_id", "client_secret", "refresh_token")}
        else:
            form = {"grant_type": _GRANT, "assertion": self._assertion(found)}
        url = str(found.get("token_uri") or _TOKENS)
        if not url.startswith(("https://", "http://")):
            raise InvalidRequest("the Google credentials name no token service", hint="download the key file again")
        return self._ask_token(urllib.request.Request(url, urlencode(form).encode()))  # noqa: S310 - checked above

    def _credentials(self) -> dict[str, Any] | None:
        if text := self._environ.get("GOOGLE_SERVICE_ACCOUNT_KEY"):
            return _parsed(text, "GOOGLE_SERVICE_ACCOUNT_KEY")
        named = next(filter(None, map(self._environ.get, _FILES)), None)
        path = Path(named) if named else expanded_if_known(self._environ.get("HOME") or "~") / _LOGIN
        try:
            return _parsed(path.read_text(), str(path))
        except FileNotFoundError as error:
            if named is None:
                return None
            raise InvalidRequest(f"{path} cannot be read", cause=error.strerror or "", hint="name another") from error
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{path} cannot be read", cause=type(error).__name__, hint="mend it") from error

    def _assertion(self, account: Mapping[str, Any]) -> str:
        now = int(self._clock.now().timestamp())
        header = {"alg": "RS256", "typ": "JWT", "kid": account.get("private_key_id", "")}
        audience = str(account.get("token_uri") or _TOKENS)
        claims = {
            "iss": account.get("client_email", ""),
            "scope": _SCOPE,
            "aud": audience,
            "iat": now,
            "exp": now + 3600,
        }
        signed = b".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        return (signed + b"." + _encoded(sign_rs256(str(account.get("private_key", "")), signed))).decode()

    def _ask_token(self, request: urllib.request.Request) -> tuple[str, float]:
        title = "no credentials for Google Cloud Storage were found"
        reply = self._send(title, request)
        token, seconds = reply.body.get("access_token"), reply.body.get("expires_in")
        is_good = reply.status == 200 and isinstance(token, str)
        if not is_good or not isinstance(seconds, (int, float)) or not seconds < _FOREVER_S:  # NaN is not less either
            raise StorageRefused(title, cause=f"the token service answered {reply.status}", hint=_CREDENTIALS)
        return str(token), float(seconds)


def _whole(answer: HTTPResponse | urllib.error.HTTPError) -> bytes:
    """Raises HTTPException for an answer that was cut, or is longer than any."""
    data = answer.read(_LARGEST)
    if answer.length:
        raise IncompleteRead(data, answer.length)
    return data


def _told(reply: _Reply) -> str:
    return f"it answered {reply.status} {reply.reason}".rstrip()


def _encoded(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):  # its own message quotes what may be a secret
        found = None
    if not isinstance(found, dict) or found.get("type") not in ("service_account", "authorized_user"):
        raise InvalidRequest(
            f"{where} holds no credentials that can be used",
            cause="locks need a service account's key or those of `gcloud auth application-default login`",
            hint="name another file, or set GOOGLE_BEARER_TOKEN",
        )
    return found
