"""Broken repositories: each damage is found by the verifier, and the engine answers with its own errors only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.formats.damage import DAMAGES, Damage, Objects, further_slot
from tests.formats.engine import examine
from tests.formats.make_golden import PASSPHRASE, stored_expectation, stored_objects
from tests.formats.test_golden import unpacked
from tools import dumb_verifier

TREES = stored_expectation()["snapshots"]


@pytest.fixture(scope="module")
def golden() -> Objects:
    return stored_objects()


def test_no_two_damages_have_the_same_name() -> None:
    assert len({damage.name for damage in DAMAGES}) == len(DAMAGES)


def test_the_whole_repository_is_read_without_a_word(golden: Objects, tmp_path: Path) -> None:
    outcome = examine(golden, tmp_path, TREES)
    assert (outcome.told, outcome.silent, outcome.restored) == ([], [], 1)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_the_engine_tells_and_never_restores_wrong_data(golden: Objects, tmp_path: Path, damage: Damage) -> None:
    outcome = examine(damage.change(golden), tmp_path / "inside" / "target", TREES)
    assert outcome.silent == []
    assert outcome.told or not damage.engine
    assert [path.name for path in tmp_path.iterdir()] in ([], ["inside"])
    assert not (tmp_path / "escaped").exists()


def test_a_pack_that_is_condemned_without_a_verdict_is_still_read(golden: Objects, tmp_path: Path) -> None:
    damage = next(damage for damage in DAMAGES if damage.name == "collection: a pack in use condemned")
    outcome = examine(damage.change(golden), tmp_path, TREES)
    assert (outcome.told, outcome.restored) == ([], 1)


def test_a_damaged_epoch_leaves_what_others_sealed_readable(golden: Objects, tmp_path: Path) -> None:
    damage = next(damage for damage in DAMAGES if damage.name == "later epoch: a bit flipped")
    outcome = examine(damage.change(golden), tmp_path, TREES)
    assert outcome.told
    assert outcome.restored == 1


def test_a_slot_of_a_newer_version_leaves_the_others_usable(golden: Objects, tmp_path: Path) -> None:
    objects = golden
    for number in range(16):  # some of them come first
        objects = further_slot(version=2, kind="age", created=str(number))(objects)
    assert examine(objects, tmp_path, TREES).restored == 1


def test_a_snapshot_of_another_version_leaves_the_others_readable(golden: Objects, tmp_path: Path) -> None:
    damage = next(damage for damage in DAMAGES if damage.name == "snapshot header: version")
    outcome = examine(damage.change(golden), tmp_path, TREES)
    assert outcome.told
    assert outcome.restored == 1


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_the_dumb_verifier_finds_it(
    golden: Objects, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Damage
) -> None:
    place, key = unpacked(damage.change(golden), tmp_path / "repository"), tmp_path / "passphrase"
    key.write_text(PASSPHRASE)
    status = dumb_verifier.main([str(place), "--password-file", str(key)])
    told = capsys.readouterr().out
    assert (status != 0) == damage.verifier, told
    assert (told != "") == damage.verifier
    assert damage.says in told
