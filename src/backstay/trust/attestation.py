"""Attestations: what a validator says of a snapshot, signed, and readable by anybody without a key of the repository.

Each is a DSSE envelope (github.com/secure-systems-lab/dsse, protocol 1.0) around a statement in JSON. The statement
names the snapshot by the SHA-256 of its stored bytes, so that it speaks of these bytes and of no others.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import UTC, datetime
from typing import Final

import msgspec

from backstay.core.ids import is_digest, is_ulid
from backstay.errors import BadAttestation
from backstay.trust.signing import PUBLIC_BYTES, Signer, is_signed

PAYLOAD_TYPE: Final = "application/vnd.backstay.attestation.v1+json"
MAX_ENVELOPE: Final = 16 << 10  # bytes; a whole one has about 700


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """This snapshot was found good: field order is the format.

    `repository` is the uuid of repo.json, `digest` the SHA-256 of the object `snapshots/<snapshot>`, `public_key` that
    of the validator, all in lower-case hexadecimal; `attested` is the validator's clock, ISO 8601 in UTC.
    """

    repository: str
    snapshot: str
    digest: str
    public_key: str
    attested: str

    @property
    def key_id(self) -> str:
        return key_id(bytes.fromhex(self.public_key))


class _Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keyid: str
    sig: str


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    payload_type: str
    payload: str
    signatures: tuple[_Signature, ...]


def key_id(public: bytes) -> str:
    """How a validator's key is named: the SHA-256 of its 32 bytes."""
    return hashlib.sha256(public).hexdigest()


def attested_now(now: datetime) -> str:
    """The time of a statement."""
    return now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def seal_statement(statement: Statement, signer: Signer) -> bytes:
    """The envelope with a statement that the signer makes: its `public_key` must be the signer's."""
    payload = msgspec.json.encode(statement)
    signature = signer.sign(PAYLOAD_TYPE.encode(), payload)
    envelope = _Envelope(
        PAYLOAD_TYPE,
        base64.b64encode(payload).decode(),
        (_Signature(key_id(signer.public), base64.b64encode(signature).decode()),),
    )
    return msgspec.json.encode(envelope)


def open_statement(data: bytes) -> Statement:
    """The statement in an envelope, once its signature was found to be that of the key that it names.

    Whether that key is anybody's is for a QuorumPolicy to say. Raises BadAttestation.
    """
    envelope = _envelope(data)
    payload = _decoded(envelope.payload)
    statement = _statement(payload)
    public, signature = bytes.fromhex(statement.public_key), envelope.signatures[0]
    if signature.keyid != key_id(public):
        raise BadAttestation("an attestation is signed with another key than it names")
    if not is_signed(public, _decoded(signature.sig), PAYLOAD_TYPE.encode(), payload):
        raise BadAttestation("the signature of an attestation is not valid")
    return statement


def _envelope(data: bytes) -> _Envelope:
    if len(data) > MAX_ENVELOPE:
        raise BadAttestation("an attestation is too large", cause=f"{len(data)} bytes")
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadAttestation("an attestation cannot be read", cause=str(error)) from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise BadAttestation("this is no attestation", cause=f"its type is {envelope.payload_type[:80]!r}")
    if len(envelope.signatures) != 1:
        raise BadAttestation("an attestation has one signature", cause=f"this has {len(envelope.signatures)}")
    return envelope


def _decoded(text: str) -> bytes:
    """What stands there in base64. Unused bits that are set are damage: copies are equal, or one is not whole."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadAttestation("an attestation cannot be read", cause=str(error)) from error
    if base64.b64encode(data).decode() != text:
        raise BadAttestation("an attestation cannot be read", cause="it is not written as it is encoded")
    return data


def _statement(payload: bytes) -> Statement:
    try:
        statement = msgspec.json.decode(payload, type=Statement)
        moment = datetime.fromisoformat(statement.attested)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadAttestation("the statement of an attestation cannot be read", cause=str(error)) from error
    if not (is_ulid(statement.snapshot) and is_digest(statement.digest) and moment.tzinfo is not None):
        raise BadAttestation("the statement of an attestation names no snapshot, digest or time")
    if not is_digest(statement.public_key):  # as long as a digest: 32 bytes in hexadecimal
        raise BadAttestation("the statement of an attestation names no key", cause=f"a key has {PUBLIC_BYTES} bytes")
    return statement
