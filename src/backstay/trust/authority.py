"""The authority that gives agents their client certificates, and a server without one a certificate of its own.

Certificates are X.509 (RFC 5280) with keys on P-256, which every TLS library knows. An agent's name is the URI
`urn:backstay:agent:NAME` among the subject's alternative names; what stands elsewhere in a certificate says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from backstay.core.clock import Clock
from backstay.errors import InvalidRequest
from backstay.trust.certificate_requests import MOST_BYTES, UNREADABLE, PublicKey, key_digest, key_of, named

AGENT_URN: Final = "urn:backstay:agent:"
_AUTHORITY_LIFE: Final = timedelta(days=3650)
_EARLIER: Final = timedelta(minutes=5)  # valid a little before it was made: clocks differ


@dataclass(frozen=True, kw_only=True, slots=True)
class Issued:
    """A certificate. `fingerprint` is SHA-256 over its DER form, `key_digest` over the public key's."""

    pem: str
    serial: str
    fingerprint: str
    key_digest: str
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentIdentity:
    """Whom a certificate of this authority names."""

    name: str
    serial: str
    fingerprint: str
    expires_at: datetime


class Authority:
    """Signs certificates with one key, and recognises those that it signed."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key, self._certificate = key, certificate

    @classmethod
    def generate(cls, clock: Clock) -> Self:
        """A new authority, good for ten years."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = named("Backstay agents")
        made = (
            _begun(name, name, key.public_key(), clock, _AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, SHA256())
        )
        return cls(key, made)

    @classmethod
    def parse(cls, text: str) -> Self:
        """An authority from what `printed` gave. Raises InvalidRequest, which repeats nothing of the key."""
        try:
            key = load_pem_private_key(text.encode(), password=None)
            certificate = x509.load_pem_x509_certificate(text.encode())
        except UNREADABLE:
            raise _unusable() from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise _unusable()
        return cls(key, certificate)

    def printed(self) -> str:
        """Key and certificate in PEM form: whoever has this can name agents."""
        key = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return key.decode() + self.certificate

    @property
    def certificate(self) -> str:
        """The authority's own certificate in PEM form, by which servers check agents and agents the server."""
        return self._certificate.public_bytes(Encoding.PEM).decode()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the authority's certificate, in hexadecimal."""
        return self._certificate.fingerprint(SHA256()).hex()

    def issue(self, request: str, name: str, *, clock: Clock, life: timedelta) -> Issued:
        """A client certificate for the agent `name`, for the key of a request (PKCS #10, PEM).

        Nothing else of the request counts: who asks does not say who they are. Raises InvalidRequest.
        """
        key = key_of(request)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(AGENT_URN + name)])
        return self._issued(key, name, names, ExtendedKeyUsageOID.CLIENT_AUTH, clock, life)

    def issue_server(self, hosts: Sequence[str], *, clock: Clock, life: timedelta) -> tuple[Issued, str]:
        """A certificate for a server that has these names and addresses, and its key in PEM form."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        issued = self._issued(key.public_key(), hosts[0], names, ExtendedKeyUsageOID.SERVER_AUTH, clock, life)
        return issued, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def identify(self, certificate: bytes, *, now: datetime) -> AgentIdentity | None:
        """Whom a certificate (DER) names, None unless this authority gave it to an agent and it is valid now."""
        if len(certificate) > MOST_BYTES:
            return None
        try:
            found = x509.load_der_x509_certificate(certificate)
            found.verify_directly_issued_by(self._certificate)
            uses = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except UNREADABLE:
            return None
        if not certificate.endswith(_as_whole_bytes(found.signature)):
            return None  # the same signature in another spelling would be a certificate with another fingerprint
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        if list(uses) != [ExtendedKeyUsageOID.CLIENT_AUTH] or len(uris) != 1 or not uris[0].startswith(AGENT_URN):
            return None
        if not found.not_valid_before_utc <= now < found.not_valid_after_utc:
            return None
        return AgentIdentity(
            name=uris[0].removeprefix(AGENT_URN),
            serial=_serial(found),
            fingerprint=found.fingerprint(SHA256()).hex(),
            expires_at=found.not_valid_after_utc,
        )

    def _issued(
        self,
        key: PublicKey,
        name: str,
        names: x509.SubjectAlternativeName,
        use: x509.ObjectIdentifier,
        clock: Clock,
        life: timedelta,
    ) -> Issued:
        made = (
            _begun(named(name), self._certificate.subject, key, clock, life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(names, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, SHA256())
        )
        return Issued(
            pem=made.public_bytes(Encoding.PEM).decode(),
            serial=_serial(made),
            fingerprint=made.fingerprint(SHA256()).hex(),
            key_digest=key_digest(key),
            expires_at=made.not_valid_after_utc,
        )


def _begun(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, clock: Clock, life: timedelta
) -> x509.CertificateBuilder:
    now = clock.now().replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + life)
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _as_whole_bytes(signature: bytes) -> bytes:
    """A signature of P-256 as the last part of a certificate: a bit string in DER, without unused bits (X.690, 8.6)."""
    return bytes((0x03, len(signature) + 1, 0)) + signature


def _serial(certificate: x509.Certificate) -> str:
    return f"{certificate.serial_number:x}"


def _unusable() -> InvalidRequest:
    return InvalidRequest(
        "the authority of the agents cannot be used",
        cause="its file does not hold a key and the certificate for it",
        hint="put the file back from a backup, or remove it and let the agents join anew",
    )
