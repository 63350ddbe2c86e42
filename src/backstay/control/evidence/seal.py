"""Evidence as a file: the report, the SHA-256 of its canonical form, and the signature of whoever checked.

A seal is bound to the bytes of the report by RFC 8785 and to its purpose by its type (DSSE's pre-authentication
encoding), so that anybody can check it offline, without this program: canonical JSON, SHA-256, Ed25519.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from backstay.codec.canonical_json import canonical
from backstay.control.evidence.report import FORMAT, Document
from backstay.core.ids import is_digest
from backstay.errors import CorruptedBackup, InvalidRequest
from backstay.trust.signing import SIGNATURE_BYTES, Signer, is_signed

SIGNED_AS: Final = b"application/vnd.backstay.evidence+json"
LARGEST: Final = 64 << 20  # bytes of a file that is checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A report with its digest; `key` and `signature` are there if it was signed, as hexadecimal digits and bytes."""

    report: Document
    sha256: str
    key: str | None = None
    signature: bytes | None = None

    def document(self) -> Document:
        """The form of a file."""
        signed = None
        if self.key is not None and self.signature is not None:
            signed = {
                "algorithm": "ed25519",
                "type": SIGNED_AS.decode(),
                "public_key": self.key,
                "value": base64.b64encode(self.signature).decode(),
            }
        return {"report": self.report, "sha256": self.sha256, "signature": signed}

    def as_json(self) -> bytes:
        """The file, for programs and people."""
        return json.dumps(self.document(), indent=2, ensure_ascii=False).encode() + b"\n"


def seal(report: Document, signer: Signer | None = None) -> Evidence:
    """Raises InvalidRequest for a report that JSON cannot hold."""
    body = canonical(report, what="the report")
    return Evidence(
        report=report,
        sha256=hashlib.sha256(body).hexdigest(),
        key=None if signer is None else signer.public.hex(),
        signature=None if signer is None else signer.sign(SIGNED_AS, body),
    )


def opened(document: object, *, trusted: Collection[str] | None = None) -> Evidence:
    """The evidence of a file, checked. `trusted` are public keys of which one must have signed; None for any.

    Raises CorruptedBackup for what was changed or is not signed as it must be, InvalidRequest for what is no evidence.
    """
    evidence = _parsed(document)
    body = canonical(evidence.report, what="the report")
    if hashlib.sha256(body).hexdigest() != evidence.sha256:
        raise _changed("its digest is not that of the report")
    if evidence.key is not None and not (
        is_digest(evidence.key)
        and evidence.signature is not None
        and len(evidence.signature) == SIGNATURE_BYTES
        and is_signed(bytes.fromhex(evidence.key), evidence.signature, SIGNED_AS, body)
    ):
        raise _changed("its signature is not one of the key that it names")
    if trusted is not None and evidence.key not in trusted:
        who = "nobody" if evidence.key is None else f"the key {evidence.key}"
        raise _changed(f"it was signed by {who}, which is not trusted")
    return evidence


def read_json(data: bytes) -> object:
    """JSON in which no name stands twice in an object: readers do not agree on which of the two holds.

    Raises ValueError, RecursionError.
    """
    return json.loads(data, object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return found


def _parsed(document: object) -> Evidence:
    if not isinstance(document, Mapping) or set(document) != {"report", "sha256", "signature"}:
        raise _none("it has other members than report, sha256 and signature")
    report, digest, signed = document["report"], document["sha256"], document["signature"]
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise _none(f"its report is not of the format {FORMAT}")
    if not isinstance(digest, str):
        raise _none("it has no digest")
    if signed is None:
        return Evidence(report=report, sha256=digest)
    return Evidence(report=report, sha256=digest, key=_key(signed), signature=_signature(signed))


def _key(signed: Any) -> str:  # noqa: ANN401 - whatever stands in the file
    if not isinstance(signed, Mapping) or (signed.get("algorithm"), signed.get("type")) != (
        "ed25519",
        SIGNED_AS.decode(),
    ):
        raise _none("its signature is of a kind that this version does not know")
    if set(signed) != {"algorithm", "type", "public_key", "value"}:
        raise _none("its signature has other members than algorithm, type, public_key and value")
    return str(signed.get("public_key"))


def _signature(signed: Mapping[str, Any]) -> bytes:
    text = str(signed.get("value"))
    try:
        value = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise _changed("its signature is not base64") from error
    if base64.b64encode(value).decode() != text:  # bits after the end, which decoders skip
        raise _changed("its signature is not written as base64 is")
    return value


def _changed(cause: str) -> CorruptedBackup:
    return CorruptedBackup(
        "this evidence is not what was sealed",
        cause=cause,
        hint="get the file again from where it was made; do not rely on this one",
    )


def _none(cause: str) -> InvalidRequest:
    return InvalidRequest(
        "this is no evidence of a verification",
        cause=cause,
        hint="`backstay verify --evidence FILE` writes such files",
    )
