"""The verifier shares nothing with the program, and its own decoding is right."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.dumb_verifier import DamageError, Msgpack

from backstay.repository.records import padded_length
from tests.formats.vectors import DATA_KEY, KEY_OF_VECTORS, parsed
from tools import dumb_verifier

ALLOWED = {"blake3", "cryptography", "zstandard"}
DOCUMENT = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
VALUES = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_it_imports_nothing_of_the_program() -> None:
    tree = ast.parse(Path(dumb_verifier.__file__).read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    tops = {module.partition(".")[0] for module in modules}
    assert tops - set(sys.stdlib_module_names) == ALLOWED


@given(VALUES)
def test_msgpack_agrees_with_msgspec(value: object) -> None:
    assert Msgpack(msgspec.msgpack.encode(value)).whole() == value


@given(st.binary(max_size=40))
def test_msgpack_of_anything_is_its_one_form_or_damage(data: bytes) -> None:
    try:
        value = Msgpack(data).whole()
    except DamageError:
        return
    assert msgspec.msgpack.encode(value) == data


@given(st.integers(0, 1 << 40))
def test_padding_agrees(length: int) -> None:
    assert dumb_verifier.padme(length) == padded_length(length)


def test_keys_agree_with_the_vectors() -> None:
    said = parsed(DOCUMENT)
    root = bytes.fromhex(said["root"])
    assert dumb_verifier.expand(root, b"backstay/v1/epoch").hex() == said["wrapping key"]
    assert dumb_verifier.expand(root, b"backstay/v1/chunk-id").hex() == said["id key"]
    header = bytes.fromhex(said["header of a slot removal"])
    keys = dumb_verifier.expand(DATA_KEY, KEY_OF_VECTORS + header[:60], 64)
    assert keys == bytes.fromhex(said["key of that header"]) + header[60:]
    assert dumb_verifier.printed_secret(said["secret as a recovery key"].lower()).hex() == said["secret"]
    slot = msgspec.json.decode(said["slot of the passphrase"], type=dict[str, object])
    used = bytes.fromhex(said["passphrase as used"])
    opened = dumb_verifier.root_key(slot, "passphrase", used, said["repo.json"].encode())
    assert opened == root


def test_a_mistyped_key_is_refused() -> None:
    with pytest.raises(dumb_verifier.CannotOpenError):
        dumb_verifier.printed_secret(parsed(DOCUMENT)["secret as a recovery key"][:-1] + "A")
