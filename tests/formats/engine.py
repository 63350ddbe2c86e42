"""Reads a repository with the engine, as far as it goes, and says what it told and what it kept to itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

from backstay.core.names import printable
from backstay.errors import BackstayError
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.operations.snapshots.walk import Item, walk
from backstay.repository.blobs.contents import read_content
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.trust.secrets import Secret
from tests.formats.compare import differences
from tests.formats.forge import Objects, environment, storage_of
from tests.formats.make_golden import PASSPHRASE


@dataclass(slots=True)
class Outcome:
    """`told` are typed errors and reported items, `silent` what was restored wrongly without a word."""

    told: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    restored: int = 0  # snapshots that came back whole


def examine(objects: Objects, place: Path, trees: dict[str, Any]) -> Outcome:
    """Open, list, walk and restore; anything but a BackstayError comes through."""
    outcome = Outcome()
    try:
        opened = Repository.open(storage_of(objects), Secret.passphrase(PASSPHRASE), environment=environment())
    except BackstayError as error:
        outcome.told.append(str(error))
        return outcome
    with opened as repository:
        try:
            index = repository.index
            live = repository.snapshots.live(on_damage=lambda name, error: outcome.told.append(f"{name}: {error}"))
        except BackstayError as error:
            outcome.told.append(str(error))
            return outcome
        for manifest in live:
            _read(repository, manifest, outcome)
        for manifest in live[-1:]:
            _restore(repository, manifest, place / manifest.id, trees.get(manifest.id, {}).get("tree"), outcome)
        outcome.told += [f"{name}: {error}" for name, error in index.damaged]
        outcome.told += [str(error) for error in repository.collections.damaged.values()]
    return outcome


def _read(repository: Repository, manifest: Manifest, outcome: Outcome) -> None:
    try:
        for visit in walk(manifest.root, repository.reader):
            if isinstance(visit, Item) and visit.node.content is not None:
                for _ in read_content(visit.node.content, repository.reader):
                    pass
    except BackstayError as error:
        outcome.told.append(str(error))


def _restore(
    repository: Repository, manifest: Manifest, target: Path, tree: dict[str, Any] | None, outcome: Outcome
) -> None:
    try:
        result = run_restore(repository, manifest, target, RestoreOptions())
    except BackstayError as error:
        outcome.told.append(str(error))
        return
    outcome.told += [f"{item.path}: {item.message}" for item in result.errors]
    reported = [item.path for item in result.errors]
    if tree is None:
        outcome.restored += not reported
        return
    wrong = [line for line in differences(target, tree) if not any(_shown(path) in line for path in reported)]
    outcome.silent += wrong
    outcome.restored += not reported


def _shown(path: str) -> str:
    """A reported path as `differences` quotes it; odd names are compared by their plain part."""
    return quote_from_bytes(path.encode()) if path.isascii() and "\\" not in path else printable(path.encode())[:6]
