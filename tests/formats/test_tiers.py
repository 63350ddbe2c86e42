"""The independent reader and repositories that have a cold tier, or were exported."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.operations.copies.export import export_snapshots
from backstay.operations.tiers.moving import plan_move, plan_recall, run_move, run_recall, set_tier
from backstay.repository.repository import Environment, Repository
from backstay.storage.local import LocalStorage
from backstay.trust.secrets import Secret
from tests.operations.copies import back_up, make_source
from tools import dumb_verifier

ENVIRONMENT = Environment(pack_target=256 << 10, threads=2)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A repository with two snapshots, all of whose data is cold."""
    secret = Secret.new_keyfile()
    (tmp_path / "key").write_text(secret.printed())
    source = make_source(tmp_path / "source")
    with Repository.create(LocalStorage(tmp_path / "repository"), secret, environment=ENVIRONMENT) as repository:
        back_up(repository, source)
        (source / "file-00").write_bytes(b"changed")
        back_up(repository, source)
        set_tier(repository, str(tmp_path / "cold"), 0)
    with opened(tmp_path) as repository:
        run_move(repository, plan_move(repository))
    return tmp_path


def opened(place: Path) -> Repository:
    secret = Secret.parse_keyfile((place / "key").read_text())
    return Repository.open(LocalStorage(place / "repository"), secret, environment=ENVIRONMENT)


def verified(place: Path, repository: str = "repository") -> int:
    return dumb_verifier.main([str(place / repository), "--key-file", str(place / "key")])


def test_it_tells_what_lies_in_the_cold_tier(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verified(place) == 1
    lines = capsys.readouterr().out.splitlines()
    packs = [path for path in (place / "cold/packs").rglob("*") if path.is_file()]
    assert sum("it lies in the cold tier" in line for line in lines) == len(packs)
    assert not any("foreign" in line or "not there" in line for line in lines)


def test_what_was_brought_back_is_whole(place: Path) -> None:
    with opened(place) as repository:
        run_recall(repository, plan_recall(repository))
    assert verified(place) == 0


def test_an_export_of_one_snapshot_is_whole(place: Path) -> None:
    with opened(place) as repository, LocalStorage(place / "medium") as medium:
        export_snapshots(repository, medium, repository.snapshots.live()[-1:])
    assert verified(place, "medium") == 0
