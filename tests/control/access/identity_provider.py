"""A small OpenID Connect provider on this machine: discovery, keys, and tokens signed as one likes."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey


class IdentityProvider:
    """`keys` are those that it shows; `answers` replaces what it says at a path."""

    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}/realm"
        self.keys: list[Key] = [new_rsa("one")]
        self.answers: dict[str, tuple[int, bytes, Mapping[str, str]]] = {}
        self.asked: list[str] = []

    def answer(self, path: str) -> tuple[int, bytes, Mapping[str, str]]:
        self.asked.append(path)
        if path in self.answers:
            return self.answers[path]
        if path == "/realm/.well-known/openid-configuration":
            return 200, json.dumps({"issuer": self.issuer, "jwks_uri": self.issuer + "/keys"}).encode(), {}
        if path == "/realm/keys":
            return 200, json.dumps({"keys": [shown(key) for key in self.keys]}).encode(), {}
        return 404, b"", {}

    def token(
        self, now: float, *, key: Key | None = None, header: Mapping[str, Any] | None = None, **claims: Any
    ) -> str:
        """A good token, but for what is named; a claim that is None is left out."""
        used = key or self.keys[0]
        said = {
            "iss": self.issuer,
            "aud": "backstay",
            "sub": "1234",
            "exp": now + 300,
            "iat": now,
            "preferred_username": "Ann",
            "groups": ["ops"],
            **claims,
        }
        head = {"alg": str(used.get("alg")), "kid": used.kid, **(header or {})}
        return jwt.encode(
            {name: value for name, value in head.items() if value is not None},
            {name: value for name, value in said.items() if value is not None},
            used,
            algorithms=[str(used.get("alg"))],
        )


def new_rsa(kid: str, bits: int = 2048, alg: str = "RS256") -> RSAKey:
    return RSAKey.generate_key(bits, {"kid": kid, "alg": alg, "use": "sig"})


def new_ec(kid: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid, "alg": "ES256", "use": "sig"})


def new_okp(kid: str) -> OKPKey:
    return OKPKey.generate_key("Ed25519", {"kid": kid, "alg": "Ed25519", "use": "sig"})


def shown(key: Key) -> dict[str, Any]:
    """The public half, as providers show it."""
    return dict(key.as_dict(private=False))


def raw(header: object, claims: object, signature: bytes = b"") -> str:
    """A token that no library would make."""

    def part(value: object) -> str:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    return f"{part(header)}.{part(claims)}.{part(signature)}"


@contextmanager
def provider() -> Iterator[IdentityProvider]:
    """One that answers until the end of the block."""
    served: list[IdentityProvider] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = served[0].answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        log_message: Callable[..., None] = lambda *_: None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.append(IdentityProvider(server.server_address[1]))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield served[0]
        finally:
            server.shutdown()
            thread.join()
