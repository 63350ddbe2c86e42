"""The golden repository: today's program writes the same, and reads what was written then."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import zstandard

from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.repository.format import RESERVE
from backstay.repository.repository import Repository
from backstay.trust.secrets import Secret
from tests.formats.compare import differences
from tests.formats.forge import Objects, environment, storage_of
from tests.formats.make_golden import (
    ARCHIVE,
    KEY_FILE,
    PASSPHRASE,
    RECOVERY,
    build,
    stored_expectation,
    stored_objects,
)
from tools import dumb_verifier

EXPECTED = stored_expectation()
SECRETS = [Secret.passphrase(PASSPHRASE), KEY_FILE, RECOVERY]
OPTIONS = {"passphrase": "--password-file", "keyfile": "--key-file", "recovery": "--recovery-file"}


@pytest.fixture(scope="module")
def golden() -> Objects:
    return stored_objects()


def test_it_is_small() -> None:
    assert ARCHIVE.stat().st_size < 300 << 10


def test_today_s_program_writes_the_same(tmp_path: Path, golden: Objects) -> None:
    """Byte by byte, if it has the same zstd; another may pack differently, and then the contents must be the same."""
    made = build()
    if made.expected["made with zstd"] == EXPECTED["made with zstd"]:
        assert sorted(made.objects) == sorted(golden)
        assert [name for name in golden if made.objects[name] != golden[name]] == []
        assert made.expected == EXPECTED
    else:
        assert made.expected["snapshots"] == EXPECTED["snapshots"]
        _restore_all(made.objects, Secret.passphrase(PASSPHRASE), tmp_path)


def test_the_expectation_names_the_zstd_of_the_objects() -> None:
    assert EXPECTED["made with zstd"].count(".") == 2
    assert len(zstandard.ZSTD_VERSION) == 3


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret.kind)
def test_every_snapshot_restores(tmp_path: Path, golden: Objects, secret: Secret) -> None:
    _restore_all(golden, secret, tmp_path)


def _restore_all(objects: Objects, secret: Secret, place: Path) -> None:
    with Repository.open(storage_of(objects), secret, environment=environment()) as repository:
        live = repository.snapshots.live()
        assert {manifest.id: manifest.kind for manifest in live} == {
            ident: facts["kind"] for ident, facts in EXPECTED["snapshots"].items()
        }
        assert repository.snapshots.dropped() == {EXPECTED["dropped"]}
        for manifest in live:
            result = run_restore(repository, manifest, place / manifest.id, RestoreOptions(verify=True))
            assert result.errors == ()
            assert differences(place / manifest.id, EXPECTED["snapshots"][manifest.id]["tree"]) == []


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret.kind)
def test_the_dumb_verifier_agrees(
    tmp_path: Path, golden: Objects, secret: Secret, capsys: pytest.CaptureFixture[str]
) -> None:
    place, key = unpacked(golden, tmp_path / "repository"), tmp_path / "secret"
    key.write_text(PASSPHRASE + "\n" if secret.kind == "passphrase" else secret.printed() + "\n")
    options = [str(place), OPTIONS[secret.kind], str(key)]
    assert dumb_verifier.main(options) == 0
    for ident, facts in EXPECTED["snapshots"].items():
        target = tmp_path / ident
        assert dumb_verifier.main([*options, "--restore", str(target), ident]) == 0
        assert differences(target, facts["tree"]) == []
    assert capsys.readouterr().out == ""


def unpacked(objects: Objects, place: Path) -> Path:
    """The objects as files, as a local store has them."""
    for name, data in objects.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return place


def test_the_dumb_verifier_says_what_it_cannot_open(tmp_path: Path, golden: Objects) -> None:
    place, key = unpacked(golden, tmp_path / "repository"), tmp_path / "secret"
    key.write_text("not this one")
    assert dumb_verifier.main([str(place), "--password-file", str(key)]) == 2
    assert dumb_verifier.main([os.fspath(tmp_path), "--password-file", str(key)]) == 2


def test_the_dumb_verifier_passes_over_a_reserve(tmp_path: Path, golden: Objects) -> None:
    place, key = unpacked({**golden, RESERVE: b"random"}, tmp_path / "repository"), tmp_path / "secret"
    key.write_text(PASSPHRASE)
    assert dumb_verifier.main([str(place), "--password-file", str(key)]) == 0


def test_comparing_notices_a_difference(tmp_path: Path, golden: Objects) -> None:
    _restore_all(golden, KEY_FILE, tmp_path)
    ident, facts = next(iter(EXPECTED["snapshots"].items()))
    tree: dict[str, Any] = facts["tree"]
    (tmp_path / ident / "data/names/hello.txt").write_text("named hello.tyt")
    (tmp_path / ident / "data/many/001").unlink()
    (tmp_path / ident / "data/stranger").touch()
    found = "\n".join(differences(tmp_path / ident, tree))
    assert "sha256" in found
    assert "/data/many/001 is missing" in found
    assert "/data/stranger should not be there" in found
