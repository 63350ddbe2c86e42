"""Requests for certificates: what an agent makes at home, and what may be asked for."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from backstay.errors import InvalidRequest

MOST_BYTES: Final = 16 << 10  # of a request or a certificate that is looked at
_CURVES: Final = ("secp256r1", "secp384r1")
# What the parser raises, all told: some of these are no ValueError.
UNREADABLE: Final = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def new_request(name: str) -> tuple[str, str]:
    """What an agent makes at home: a key that never leaves it, and a request for a certificate, both in PEM form."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(named(name)).sign(key, SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private.decode(), request.public_bytes(Encoding.PEM).decode()


def request_key_digest(request: str) -> str:
    """SHA-256 of the public key that a request is for. Raises InvalidRequest."""
    return key_digest(key_of(request))


def key_of(request: str) -> PublicKey:
    """The key of a request, whose sender has proved to have its private half."""
    if len(request) > MOST_BYTES:
        raise _bad_request("it is too long")
    try:
        found = x509.load_pem_x509_csr(request.encode("utf-8", "replace"))
        key, proved = found.public_key(), found.is_signature_valid
    except UNREADABLE as error:
        raise _bad_request("it is no certificate request (PKCS #10) in PEM form") from error
    if not proved:
        raise _bad_request("it is not signed with the key that it names")
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    raise _bad_request("its key is neither on P-256 or P-384 nor Ed25519")


def _bad_request(cause: str) -> InvalidRequest:
    return InvalidRequest(
        "the request for a certificate cannot be used", cause=cause, hint="make a new key and request"
    )


def key_digest(key: PublicKey) -> str:
    """SHA-256 of a public key in DER form, in hexadecimal."""
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def named(name: str) -> x509.Name:
    """A name as certificates write it."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def validity_of(certificate: str) -> tuple[datetime, datetime]:
    """From when until when a certificate (PEM, which other PEM may stand before) is valid. Raises InvalidRequest."""
    try:
        found = x509.load_pem_x509_certificate(certificate.encode("utf-8", "replace"))
    except UNREADABLE as error:
        raise InvalidRequest("this is no certificate", cause="it cannot be read as X.509 in PEM form") from error
    return found.not_valid_before_utc, found.not_valid_after_utc
