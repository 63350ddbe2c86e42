"""Envelopes of attestations: what is signed, what is refused."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import BadAttestation
from backstay.trust.attestation import MAX_ENVELOPE, PAYLOAD_TYPE, open_statement
from backstay.trust.validators import Validator

ANNA = Validator.generate("anna", random=lambda count: b"a" * count)
BERT = Validator.generate("bert", random=lambda count: b"b" * count)
SNAPSHOT = "01hzzzzzzzzzzzzzzzzzzzzzzz"


def envelope(validator: Validator = ANNA, **changes: str) -> bytes:
    said = {"repository": "ab" * 16, "snapshot": SNAPSHOT, "attested": "2026-01-01T00:00:00Z"} | changes
    return validator.sign(digest=b"d" * 32, **said)


def changed(field: str, value: object, *, of: bytes | None = None) -> bytes:
    document = json.loads(of or envelope())
    document[field] = value
    return json.dumps(document).encode()


def test_a_statement_comes_back_as_it_was_signed() -> None:
    statement = open_statement(envelope())
    assert (statement.snapshot, statement.digest) == (SNAPSHOT, (b"d" * 32).hex())
    assert statement.public_key == ANNA.public.public_key
    assert statement.key_id == hashlib.sha256(bytes.fromhex(statement.public_key)).hexdigest()


def test_it_is_an_envelope_that_any_reader_of_dsse_can_check() -> None:
    """By hand, after github.com/secure-systems-lab/dsse, protocol.md: PAE(type, payload) is what is signed."""
    document = json.loads(envelope())
    payload, kind = base64.b64decode(document["payload"]), document["payloadType"].encode()
    signed = b"DSSEv1 " + str(len(kind)).encode() + b" " + kind + b" " + str(len(payload)).encode() + b" " + payload
    (signature,) = document["signatures"]
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(json.loads(payload)["public_key"]))
    key.verify(base64.b64decode(signature["sig"]), signed)
    assert signature["keyid"] == ANNA.public.key_id


def test_each_changed_bit_is_refused() -> None:
    """Those too that base64 does not use, as in the last sign of a signature."""
    whole = envelope()
    for at in range(8 * len(whole)):
        data = bytearray(whole)
        data[at // 8] ^= 1 << at % 8
        with pytest.raises(BadAttestation):
            open_statement(bytes(data))


@given(length=st.integers(0, len(envelope()) - 1))
def test_a_cut_one_is_refused(length: int) -> None:
    with pytest.raises(BadAttestation):
        open_statement(envelope()[:length])


@given(data=st.binary(max_size=200))
def test_bytes_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(BadAttestation):
        open_statement(data)


def _with_payload(**changes: object) -> bytes:
    said = json.loads(base64.b64decode(json.loads(envelope())["payload"])) | changes
    return changed("payload", base64.b64encode(json.dumps(said).encode()).decode())


def _signed_payload(**changes: object) -> bytes:
    """The same, signed by who says it."""
    document = json.loads(_with_payload(**changes))
    signature = ANNA.signer.sign(PAYLOAD_TYPE.encode(), base64.b64decode(document["payload"]))
    document["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(_with_payload(digest="ee" * 32), id="other digest"),
        pytest.param(_with_payload(public_key=BERT.public.public_key), id="another key named"),
        pytest.param(_with_payload(public_key="zz"), id="no key"),
        pytest.param(_with_payload(snapshot="../../etc/passwd"), id="a path for a snapshot"),
        pytest.param(_with_payload(attested="2026-01-01T00:00:00"), id="a time without zone"),
        pytest.param(_with_payload(attested="yesterday"), id="no time"),
        pytest.param(_with_payload(more=1), id="unknown field"),
        pytest.param(changed("payloadType", "text/plain"), id="another type"),
        pytest.param(changed("payloadType", PAYLOAD_TYPE + " "), id="nearly the type"),
        pytest.param(changed("payload", "%%%"), id="no base64"),
        pytest.param(changed("signatures", []), id="unsigned"),
        pytest.param(changed("signatures", json.loads(envelope())["signatures"] * 2), id="two signatures"),
        pytest.param(changed("signatures", json.loads(envelope(BERT))["signatures"]), id="signed by another"),
        pytest.param(b"[" * 5000, id="deep nesting"),
        pytest.param(b'{"x":"' + b"x" * MAX_ENVELOPE + b'"}', id="large"),
    ],
)
def test_crafted_ones_are_refused(data: bytes) -> None:
    with pytest.raises(BadAttestation):
        open_statement(data)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"public_key": "zz"}, "names no key"),
        ({"public_key": ANNA.public.public_key.upper()}, "names no key"),
        ({"snapshot": "../../etc/passwd"}, "names no snapshot"),
        ({"digest": "ee"}, "names no snapshot"),
        ({"attested": "2026-01-01T00:00:00"}, "names no snapshot"),
        ({"attested": "yesterday"}, "cannot be read"),
        ({"more": 1}, "cannot be read"),
    ],
)
def test_what_is_well_signed_and_says_nothing_is_refused(changes: dict[str, object], says: str) -> None:
    assert open_statement(_signed_payload()) == open_statement(envelope())
    with pytest.raises(BadAttestation, match=says):
        open_statement(_signed_payload(**changes))


def test_a_whole_one_is_refused_unread_when_it_is_too_large() -> None:
    assert open_statement(envelope() + b" ") == open_statement(envelope())
    with pytest.raises(BadAttestation, match="too large"):
        open_statement(envelope() + b" " * MAX_ENVELOPE)
