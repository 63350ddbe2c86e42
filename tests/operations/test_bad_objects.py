"""A verification's findings, counted by the objects that they are about."""

from __future__ import annotations

from pathlib import Path

from backstay.core.clock import SystemClock
from backstay.operations.backup.request import BackupOptions
from backstay.operations.backup.run import run_backup
from backstay.operations.findings import Finding
from backstay.operations.verify.bad_objects import BadObjects, bad_objects
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.repository import Repository
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.trust.secrets import Secret


def found(place: Path, secret: Secret) -> BadObjects:
    with Repository.open(place, secret) as repository:
        return bad_objects(run_verify(repository, None, VerifyOptions(read_data=1)).findings)


def test_what_is_damaged_and_what_is_missing_is_told_apart(tmp_path: Path) -> None:
    place, source, secret = tmp_path / "repository", tmp_path / "source", Secret.new_keyfile()
    source.mkdir()
    (source / "file").write_bytes(bytes(range(256)) * 1000)
    with Repository.create(place, secret) as repository:
        run_backup(
            repository,
            FilesystemSource([bytes(source)], filters=Filters([]), clock=SystemClock()),
            BackupOptions(host="here"),
        )
    assert found(place, secret) == BadObjects()
    (pack,) = (one for one in (place / "packs").rglob("*") if one.is_file())
    (place / "packs" / "stray").write_bytes(b"?")
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    assert found(place, secret) == BadObjects(damaged_objects=1)
    pack.unlink()
    assert found(place, secret) == BadObjects(missing_objects=1)


def test_an_object_counts_once_and_warnings_and_paths_do_not() -> None:
    def finding(subject: str, message: str, **more: object) -> Finding:
        return Finding(**{"check": "integrity", "severity": "error", "subject": subject, "message": message, **more})  # type: ignore[arg-type]

    assert bad_objects(
        [
            finding("packs/aa/b", "this pack has 3 bytes, not 4"),
            finding("packs/aa/b", "snapshots need this pack, which is missing or cut", check="completeness"),
            finding("meta/aa/c", "it was changed"),
            finding("meta/aa/c", "it was changed again"),
            finding("meta/aa/d", "slow", severity="warning"),
            finding("snapshot 01abc: /home/packs/x", "it was changed"),
        ]
    ) == BadObjects(damaged_objects=1, missing_objects=1)
