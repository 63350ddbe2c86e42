"""Answers to what HTTP servers ask of users: Basic (RFC 7617) and Digest (RFC 7616)."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import threading
from typing import Final

from backstay.storage.logins import Login

_ALGORITHMS: Final = {"SHA-256": "sha256", "MD5": "md5"}  # the better one first
_SCHEME: Final = re.compile(r"(?:^|,)\s*(Basic|Digest)\s+", re.IGNORECASE)
_FIELD: Final = re.compile(r'([a-zA-Z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class HttpLogin:
    """Remembers what a server asked for, and answers it with every request from then on."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._lock = threading.Lock()
        self._basic = False
        self._digest: dict[str, str] | None = None
        self._count = 0  # how often the nonce was used

    def learn(self, challenge: str, sent: str | None) -> bool:
        """Take in a WWW-Authenticate header; whether there is another answer to it than the one that was `sent`."""
        offers = _offers(challenge)
        with self._lock:
            for name in _ALGORITHMS:
                for kind, fields in offers:
                    if kind == "digest" and fields.get("algorithm", "MD5").upper() == name and "nonce" in fields:
                        self._digest, self._count = fields, 0
                        return sent is None or fields.get("stale", "").lower() == "true"
            self._basic = any(kind == "basic" for kind, _ in offers)
            return self._basic and sent is None

    def answer(self, method: str, target: str) -> str | None:
        """What to send as Authorization with a request; nothing before the server has asked."""
        with self._lock:
            if self._digest is not None:
                self._count += 1
                return _digest(self._login, self._digest, self._count, method, target)
        if self._basic:
            pair = f"{self._login.user}:{self._login.password}".encode()
            return f"Basic {base64.b64encode(pair).decode()}"
        return None


def _offers(challenge: str) -> list[tuple[str, dict[str, str]]]:
    """The schemes of a header, each with its parameters."""
    starts = [*_SCHEME.finditer(challenge)]
    ends = [match.start() for match in starts[1:]] + [len(challenge)]
    return [
        (start[1].lower(), {name.lower(): quoted or plain for name, quoted, plain in _FIELD.findall(text)})
        for start, text in ((start, challenge[start.end() : end]) for start, end in zip(starts, ends, strict=True))
    ]


def _digest(login: Login, asked: dict[str, str], count: int, method: str, target: str) -> str:
    name = asked.get("algorithm", "MD5")

    def hashed(text: str) -> str:
        return hashlib.new(_ALGORITHMS[name.upper()], text.encode(), usedforsecurity=False).hexdigest()

    realm, nonce, client = asked.get("realm", ""), asked["nonce"], secrets.token_hex(16)
    who, what = hashed(f"{login.user}:{realm}:{login.password}"), hashed(f"{method}:{target}")
    fields = {"username": login.user, "realm": realm, "nonce": nonce, "uri": target}
    if "auth" in [word.strip() for word in asked.get("qop", "").split(",")]:
        fields["response"] = hashed(f"{who}:{nonce}:{count:08x}:{client}:auth:{what}")
        fields["cnonce"] = client
        plain = f", qop=auth, nc={count:08x}"
    else:  # RFC 2069, which some devices still speak
        fields["response"] = hashed(f"{who}:{nonce}:{what}")
        plain = ""
    if "opaque" in asked:
        fields["opaque"] = asked["opaque"]
    quoted = ", ".join(f'{key}="{_escaped(value)}"' for key, value in fields.items())
    return f"Digest {quoted}, algorithm={name}{plain}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
