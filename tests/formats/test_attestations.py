"""The independent reader and what validators say of snapshots."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backstay.repository.format import attestation_name, graph_deletion_name
from backstay.repository.repository import Repository
from backstay.storage.local import LocalStorage
from backstay.trust.secrets import Secret
from backstay.trust.validators import Validator
from tests.operations.copies import SMALL_PACKS, back_up, make_source
from tools import dumb_verifier

ANNA = Validator.generate("anna")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A repository with a snapshot that is attested and one that waits to be collected."""
    secret = Secret.new_keyfile()
    (tmp_path / "key").write_text(secret.printed())
    source = make_source(tmp_path / "source", files=4)
    with Repository.create(LocalStorage(tmp_path / "repository"), secret, environment=SMALL_PACKS) as repository:
        first, second = back_up(repository, source), back_up(repository, source)
        repository.attestations.attest(first, repository.snapshots.digest(first), ANNA, repository.clock)
        repository.snapshots.graph_deletions.mark(second, "old", repository.clock)
    return tmp_path


def store(place: Path) -> LocalStorage:
    return LocalStorage(place / "repository")


def attestation(place: Path) -> str:
    (name,) = (info.name for info in store(place).list("attestations/"))
    return name


def verdict(place: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = dumb_verifier.main([str(place / "repository"), "--key-file", str(place / "key")])
    return status, capsys.readouterr().out


def test_it_reads_them(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = verdict(place, capsys)
    assert status == 0, told


@pytest.mark.parametrize(
    "change",
    [
        {"payloadType": "text/plain"},
        {"payload": "e30="},
        {"signatures": []},
        {"signatures": [{"keyid": "00" * 32, "sig": "AAAA"}]},
    ],
    ids=["type", "payload", "unsigned", "another key"],
)
def test_it_finds_forged_ones(place: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object]) -> None:
    name = attestation(place)
    document = json.loads(store(place).retrieve(name)) | change
    store(place).store(name, json.dumps(document).encode(), overwrite=True)
    status, told = verdict(place, capsys)
    assert status == 1
    assert name in told


def test_it_finds_torn_and_foreign_ones_and_those_about_something_else(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = attestation(place)
    data = store(place).retrieve(name)
    other = Validator.generate("other").public.key_id
    marked = next(info.name.split("/")[1].partition(".")[0] for info in store(place).list("graphs/"))
    wrong = {
        attestation_name(name.split("/")[1], other): data,
        attestation_name(marked, ANNA.public.key_id): data,
        "attestations/stray": b"",
        "graphs/stray": b"",
        graph_deletion_name(name.split("/")[1]): store(place).retrieve(graph_deletion_name(marked)),
    }
    for where, content in wrong.items():
        store(place).store(where, content)
    status, told = verdict(place, capsys)
    assert status == 1
    assert [where for where in wrong if where not in told] == []


def test_it_finds_one_whose_snapshot_was_replaced(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"snapshots/{attestation(place).split('/')[1]}"
    store(place).store(name, store(place).retrieve(name) + b"\0", overwrite=True)
    status, told = verdict(place, capsys)
    assert status == 1
    assert "other bytes than the snapshot has" in told
