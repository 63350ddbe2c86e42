"""A verification that reads everything compares ids as a whole, although the index keeps their beginnings."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.operations.verify import whole_ids
from backstay.operations.verify.run import VerifyOptions, VerifyReport, run_verify
from backstay.repository.format import BlobKind
from backstay.repository.nodes import Content
from backstay.repository.repository import Repository
from backstay.trust.secrets import Secret
from tests.formats.forge import Forge, Objects, environment, storage_of
from tests.formats.make_golden import PASSPHRASE, build

EVERYTHING = VerifyOptions(read_data=1.0)


@pytest.fixture(scope="module")
def objects() -> Objects:
    return build().objects


def stored_chunk(forge: Forge, kind: BlobKind) -> tuple[bytes, int]:
    """The id and the length of a chunk that lies in a blob of its own, or in a bundle."""
    _, record = forge.index_record()
    tables = [pack.table for pack in record.packs]
    return next((chunk, size) for t in tables for chunk, blob, _, size in t.chunks() if t.kinds[blob] == kind)


def verified(objects: Objects, cache: Path) -> VerifyReport:
    storage, secret = storage_of(objects), Secret.passphrase(PASSPHRASE)
    with Repository.open(storage, secret, environment=environment(), cache=cache) as repository:
        return run_verify(repository, options=EVERYTHING)


@pytest.mark.parametrize("kind", [BlobKind.CHUNK, BlobKind.BUNDLE])
def test_an_id_that_differs_in_its_last_byte_is_missing(objects: Objects, kind: BlobKind, tmp_path: Path) -> None:
    forge = Forge(objects)
    chunk, size = stored_chunk(forge, kind)
    other = chunk[:-1] + bytes([chunk[-1] ^ 1])
    node = forge.file(content=Content(0, chunk + other), size=2 * size)
    report = verified(forge.tree([node]), tmp_path)
    [finding] = report.findings
    assert finding.subject == f"snapshot {forge.newest.id}: /file"
    assert other.hex() in finding.message


@pytest.mark.parametrize("ahead", [1, 50_000])
def test_ids_that_are_there_are_not(
    objects: Objects, ahead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_ids, "AHEAD", ahead)
    assert verified(objects, tmp_path).findings == ()
