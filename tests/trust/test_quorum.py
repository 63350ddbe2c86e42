"""Quorum policies: which can work, whom they count."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import InvalidQuorum, InvalidRequest, QuorumNotReached, UnknownValidator
from backstay.trust.attestation import open_statement
from backstay.trust.quorum import QuorumPolicy
from backstay.trust.validators import KnownValidator, Validator

VALIDATORS = [Validator.generate(f"v{n}") for n in range(5)]
PUBLIC = [validator.public for validator in VALIDATORS]
SNAPSHOT = "01hzzzzzzzzzzzzzzzzzzzzzzz"
DIGEST = b"d" * 32


def said(validator: Validator, *, repository: str = "r", snapshot: str = SNAPSHOT, digest: bytes = DIGEST) -> bytes:
    return validator.sign(repository=repository, snapshot=snapshot, digest=digest, attested="2026-01-01T00:00:00Z")


def judged(policy: QuorumPolicy, *envelopes: bytes) -> tuple[bool, tuple[str, ...], tuple[str, ...]]:
    found = policy.judge(map(open_statement, envelopes), repository="r", snapshot=SNAPSHOT, digest=DIGEST.hex())
    return found.accepted, found.validated_by, found.missing


@given(required=st.integers(1, 4), signed=st.lists(st.integers(0, 4)))
def test_distinct_known_validators_are_counted(required: int, signed: list[int]) -> None:
    policy = QuorumPolicy(required=required, validators=PUBLIC[:4])
    accepted, by, missing = judged(policy, *(said(VALIDATORS[n]) for n in signed))
    known = {n for n in signed if n < 4}
    assert accepted == (len(known) >= required)
    assert by == tuple(f"v{n}" for n in sorted(known))
    assert set(by) | set(missing) == {"v0", "v1", "v2", "v3"}
    assert not set(by) & set(missing)


@pytest.mark.parametrize(
    "change", [{"repository": "s"}, {"snapshot": "0" + SNAPSHOT[1:-1] + "a"}, {"digest": b"e" * 32}]
)
def test_a_statement_about_something_else_counts_for_nothing(change: dict[str, str]) -> None:
    policy = QuorumPolicy(required=1, validators=PUBLIC)
    assert judged(policy, said(VALIDATORS[0], **change))[:2] == (False, ())  # type: ignore[arg-type]


def test_who_is_missing_is_told() -> None:
    policy = QuorumPolicy(required=2, validators=PUBLIC[:3])
    standing = policy.judge(
        [open_statement(said(VALIDATORS[1]))], repository="r", snapshot=SNAPSHOT, digest=DIGEST.hex()
    )
    with pytest.raises(QuorumNotReached, match=r"1 of 2.*v0, v2") as raised:
        standing.require(SNAPSHOT)
    assert raised.value.missing == ("v0", "v2")
    assert raised.value.exit_status == 16


@pytest.mark.parametrize(
    ("required", "validators", "told"),
    [
        (0, PUBLIC, "nobody"),
        (-1, PUBLIC, "nobody"),
        (6, PUBLIC, "never"),
        (1, [], "never"),
        (1, [PUBLIC[0], KnownValidator("v0", PUBLIC[1].public_key)], "v0"),
        (1, [PUBLIC[0], KnownValidator("other", PUBLIC[0].public_key)], "v0 and other"),
        (True, PUBLIC, "whole number"),
        ("2", PUBLIC, "whole number"),
        (1, [KnownValidator(f"x{n}", f"{n:064x}") for n in range(1001)], "too many"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(required: int, validators: list[KnownValidator], told: str) -> None:
    with pytest.raises(InvalidQuorum, match=told):
        QuorumPolicy(required=required, validators=validators)


@pytest.mark.parametrize(
    ("name", "key"),
    [("", "a" * 64), ("a:b", "a" * 64), ("a\nb", "a" * 64), ("x" * 101, "a" * 64), ("a", "A" * 64), ("a", "a" * 62)],
)
def test_what_can_be_no_validator_is_refused(name: str, key: str) -> None:
    with pytest.raises(InvalidRequest):
        KnownValidator(name, key)
    if len(key) == 64 and key.islower():
        with pytest.raises(InvalidRequest):
            Validator.generate(name)


def test_an_unknown_key_is_told() -> None:
    policy = QuorumPolicy(required=1, validators=PUBLIC[:2])
    assert policy.find(PUBLIC[1].public_key) == PUBLIC[1]
    with pytest.raises(UnknownValidator, match=PUBLIC[2].public_key):
        policy.find(PUBLIC[2].public_key)


def test_policies_differ_by_number_and_keys() -> None:
    two = QuorumPolicy(required=2, validators=PUBLIC[:3])
    assert two.digest == QuorumPolicy(required=2, validators=PUBLIC[2::-1]).digest
    assert two.digest != QuorumPolicy(required=1, validators=PUBLIC[:3]).digest
    assert two.digest != QuorumPolicy(required=2, validators=PUBLIC[1:4]).digest


def _document() -> dict[str, object]:
    return {
        "required": 2,
        "validators": [{"name": known.name, "public_key": known.public_key} for known in PUBLIC[:3]],
    }


def test_a_policy_is_read_from_yaml_and_json(tmp_path: Path) -> None:
    (tmp_path / "q.json").write_text(json.dumps(_document()))
    rows = "".join(f"  - name: {known.name}\n    public_key: '{known.public_key}'\n" for known in PUBLIC[:3])
    (tmp_path / "q.yaml").write_text(f"# ours\nrequired: 2\nvalidators:\n{rows}")
    expected = QuorumPolicy(required=2, validators=PUBLIC[:3])
    assert QuorumPolicy.load(tmp_path / "q.json") == QuorumPolicy.load(tmp_path / "q.yaml") == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "valid"),
        ("[]", "valid"),
        ("required: 1", "validators"),
        (json.dumps(_document() | {"requierd": 2}), "requierd"),
        (json.dumps(_document() | {"required": "2"}), "required"),
        (json.dumps(_document() | {"required": 4}), "never"),
        ("required: [", "cannot be read"),
        ("required: 1\nrequired: 2\nvalidators: []", "duplicate"),
        ("required: !!python/object/apply:os.system [true]\nvalidators: []", "cannot be read"),
        ("\x00", "cannot be read"),
        ("[" * 1000, "cannot be read"),
        ("#" * (1 << 21), "too large"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "q.yaml").write_text(text)
    with pytest.raises(InvalidQuorum, match=told):
        QuorumPolicy.load(tmp_path / "q.yaml")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot read"):
        QuorumPolicy.load(tmp_path / "none.yaml")


def test_a_validator_comes_back_from_its_key_file() -> None:
    made = Validator.generate("anna lena", random=os.urandom)
    again = Validator.parse(made.printed() + "\n")
    assert again.public == made.public
    assert again.name == "anna lena"


def test_a_private_key_is_never_shown() -> None:
    made = Validator.generate("anna")
    words = made.printed().rpartition(":")[2]
    assert words not in repr(made)
    assert repr(made) == "Validator(name='anna')"


@pytest.mark.parametrize(
    "text", ["", "backstay-key-1:AAAA", "backstay-validator-1:anna:AAAA", "backstay-validator-1:x"]
)
def test_what_is_no_key_file_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        Validator.parse(text)


def test_a_key_file_with_a_typing_mistake_is_refused() -> None:
    printed = Validator.generate("anna").printed()
    wrong = printed[:-1] + ("A" if printed[-1] != "A" else "B")
    with pytest.raises(InvalidRequest, match="not typed"):
        Validator.parse(wrong)
