"""Items that can be read, and that no restore can make: `verify` tells of them."""

from __future__ import annotations

from typing import Any

import pytest

from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.repository import Repository
from backstay.trust.secrets import Secret
from tests.formats.forge import Forge, Objects, environment, storage_of
from tests.formats.make_golden import PASSPHRASE, stored_objects

NO_FILE: dict[str, Any] = {"size": 0, "content": None, "sha256": None}


@pytest.fixture(scope="module")
def golden() -> Objects:
    return stored_objects()


def problems(objects: Objects, changes: dict[str, Any]) -> list[str]:
    """What is told of the one item of a snapshot."""
    forge = Forge(objects)
    forged = forge.tree([forge.file(**changes)])
    with Repository.open(storage_of(forged), Secret.passphrase(PASSPHRASE), environment=environment()) as repository:
        newest = repository.snapshots.live()[-1]
        report = run_verify(repository, [newest.id], VerifyOptions(checks=("completeness",)))
    told = [finding for finding in report.findings if finding.severity == "error"]
    assert all(finding.subject.startswith(f"snapshot {newest.id}: /") for finding in told)
    return [finding.message for finding in told]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"size": 1 << 40}, "its size"),
        ({"content": None}, "its size"),
        ({"size": 1 << 20, "extents": ((0, 1 << 10),)}, "its size"),
        ({"mode": 0o644}, "kind"),
        ({"mode": 0o170644}, "kind"),
        ({"mode": 0xFFFFFFFF}, "kind"),
        (NO_FILE | {"mode": 0o120777}, "symlink"),
        (NO_FILE | {"mode": 0o120777, "target": b""}, "symlink"),
        (NO_FILE | {"mode": 0o120777, "target": b"a\0b"}, "symlink"),
        (NO_FILE | {"mode": 0o020666}, "device"),
        (NO_FILE | {"mode": 0o060666, "device": -1}, "device"),
    ],
)
def test_an_impossible_item_is_told(golden: Objects, changes: dict[str, Any], told: str) -> None:
    (message,) = problems(golden, changes)
    assert told in message


@pytest.mark.parametrize(
    "changes",
    [
        {},
        NO_FILE,
        NO_FILE | {"size": 1 << 20, "extents": ()},
        NO_FILE | {"mode": 0o120777, "target": b"there"},
        NO_FILE | {"mode": 0o010666},
        NO_FILE | {"mode": 0o140666},
        NO_FILE | {"mode": 0o020666, "device": 0},
    ],
)
def test_what_a_file_system_can_hold_is_fine(golden: Objects, changes: dict[str, Any]) -> None:
    assert problems(golden, changes) == []
