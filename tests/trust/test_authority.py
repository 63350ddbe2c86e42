"""The authority of agents: what it signs, and what it recognises."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from backstay.errors import InvalidRequest
from backstay.testing import FakeClock
from backstay.trust.authority import AGENT_URN, Authority
from backstay.trust.certificate_requests import named, new_request, request_key_digest

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="module")
def authority(clock: FakeClock) -> Authority:
    return Authority.generate(clock)


def der(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


def request_for(key: object, digest: SHA256 | None = None) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(named("x"))
    made = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else digest or SHA256())  # type: ignore[arg-type]
    return made.public_bytes(Encoding.PEM).decode()


def test_an_agent_is_recognised_by_its_certificate(authority: Authority, clock: FakeClock) -> None:
    _, request = new_request("host-7")
    issued = authority.issue(request, "host-7", clock=clock, life=DAY)
    found = authority.identify(der(issued.pem), now=clock.now())
    assert found is not None
    assert (found.name, found.serial, found.fingerprint) == ("host-7", issued.serial, issued.fingerprint)
    assert found.expires_at == issued.expires_at == datetime(2026, 1, 2, tzinfo=UTC)
    assert issued.key_digest == request_key_digest(request)


def test_the_name_is_the_authoritys_and_not_the_requests(authority: Authority, clock: FakeClock) -> None:
    _, request = new_request("admin")
    issued = authority.issue(request, "host-7", clock=clock, life=DAY)
    found = authority.identify(der(issued.pem), now=clock.now())
    assert found is not None
    assert found.name == "host-7"
    assert b"admin" not in der(issued.pem)


@pytest.mark.parametrize(
    ("seconds", "valid"), [(-301, False), (-299, True), (0, True), (86399, True), (86400, False), (86401, False)]
)
def test_a_certificate_is_valid_for_its_time(authority: Authority, clock: FakeClock, seconds: int, valid: bool) -> None:
    issued = authority.issue(new_request("a")[1], "a", clock=clock, life=DAY)
    found = authority.identify(der(issued.pem), now=clock.now() + timedelta(seconds=seconds))
    assert (found is not None) == valid


def test_another_authority_of_the_same_name_is_not_believed(authority: Authority, clock: FakeClock) -> None:
    other = Authority.generate(clock)
    issued = other.issue(new_request("a")[1], "a", clock=clock, life=DAY)
    assert other.identify(der(issued.pem), now=clock.now()) is not None
    assert authority.identify(der(issued.pem), now=clock.now()) is None


def test_certificates_for_servers_and_the_authoritys_own_name_no_agent(authority: Authority, clock: FakeClock) -> None:
    server, _ = authority.issue_server(["localhost", "127.0.0.1"], clock=clock, life=DAY)
    for pem in (server.pem, authority.certificate):
        assert authority.identify(der(pem), now=clock.now()) is None
    names = (
        x509.load_pem_x509_certificate(server.pem.encode())
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
    )
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("127.0.0.1")]


@pytest.mark.parametrize(
    ("uris", "uses"),
    [
        ([], [ExtendedKeyUsageOID.CLIENT_AUTH]),
        (["urn:backstay:agentx:a"], [ExtendedKeyUsageOID.CLIENT_AUTH]),
        ([AGENT_URN + "a", AGENT_URN + "b"], [ExtendedKeyUsageOID.CLIENT_AUTH]),
        ([AGENT_URN + "a"], [ExtendedKeyUsageOID.SERVER_AUTH]),
        ([AGENT_URN + "a"], [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
        ([AGENT_URN + "a"], []),
    ],
)
def test_a_certificate_of_other_use_names_no_agent(
    authority: Authority, clock: FakeClock, uris: list[str], uses: list[x509.ObjectIdentifier]
) -> None:
    """Even if the authority's own key signed it."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(named("a"))
        .issuer_name(authority._certificate.subject)
        .public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
        .serial_number(1)
        .not_valid_before(clock.now())
        .not_valid_after(clock.now() + DAY)
    )
    names = [x509.UniformResourceIdentifier(uri) for uri in uris]
    builder = builder.add_extension(x509.SubjectAlternativeName(names or [x509.DNSName("a")]), critical=False)
    if uses:
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    made = builder.sign(authority._key, SHA256())
    assert authority.identify(made.public_bytes(Encoding.DER), now=clock.now()) is None


def test_no_changed_certificate_is_recognised(authority: Authority, clock: FakeClock) -> None:
    good = der(authority.issue(new_request("a")[1], "a", clock=clock, life=DAY).pem)
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1
        assert authority.identify(bytes(bad), now=clock.now()) is None, (
            place,
            good[place - 4 : place + 4].hex(),
            len(good),
        )
    for bad_length in (b"", good[:-1], good + b"\0", b"\x30\x82" + b"a" * 20_000, b"\0" * 100):
        assert authority.identify(bad_length, now=clock.now()) is None


@pytest.mark.parametrize(
    "request_pem",
    [
        "",
        "nonsense",
        "\ud800",
        "x" * 20_000,
        "\n" * 20_000 + new_request("a")[1],
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        request_for(rsa.generate_private_key(65537, 1024)),
        request_for(ec.generate_private_key(ec.SECP192R1())),
        request_for(ec.generate_private_key(ec.SECP256K1())),
    ],
    ids=["empty", "text", "surrogate", "long", "long and good", "damaged", "rsa", "p192", "k256"],
)
def test_a_request_that_is_none_gets_a_message(authority: Authority, clock: FakeClock, request_pem: str) -> None:
    with pytest.raises(InvalidRequest, match="request for a certificate"):
        authority.issue(request_pem, "a", clock=clock, life=DAY)


def test_a_request_must_be_signed_with_its_own_key(authority: Authority, clock: FakeClock) -> None:
    mine, theirs = (x509.load_pem_x509_csr(new_request("a")[1].encode()) for _ in range(2))
    points = [
        one.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)[-65:] for one in (mine, theirs)
    ]
    forged = mine.public_bytes(Encoding.DER)
    swapped = forged.replace(points[0], points[1])
    assert swapped != forged
    text = base64.encodebytes(swapped).decode()
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"
    with pytest.raises(InvalidRequest, match="not signed with the key"):
        authority.issue(pem, "a", clock=clock, life=DAY)


def test_ed25519_and_p384_are_taken(authority: Authority, clock: FakeClock) -> None:
    for key in (ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())):
        issued = authority.issue(request_for(key), "a", clock=clock, life=DAY)
        assert authority.identify(der(issued.pem), now=clock.now()) is not None


def test_an_authority_comes_back_from_its_text(authority: Authority, clock: FakeClock) -> None:
    again = Authority.parse(authority.printed())
    assert again.fingerprint == authority.fingerprint
    issued = again.issue(new_request("a")[1], "a", clock=clock, life=DAY)
    assert authority.identify(der(issued.pem), now=clock.now()) is not None
    other = Authority.generate(clock)
    rsa_key = rsa.generate_private_key(65537, 1024).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key = authority.printed().partition("-----BEGIN CERTIFICATE")[0]
    for text in ("", "x", key, authority.certificate, key + other.certificate, rsa_key.decode() + other.certificate):
        with pytest.raises(InvalidRequest) as caught:
            Authority.parse(text)
        assert "PRIVATE" not in f"{caught.value} {caught.value.hint}"
