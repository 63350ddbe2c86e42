"""Broken repositories: each damage is found by the verifier, and the engine answers with its own errors only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from backstay.errors import CorruptedBackup
from backstay.operations.verify.run import run_verify
from backstay.repository.nodes import Content
from backstay.repository.repository import Repository
from backstay.repository.trees.listings import encode_node
from backstay.repository.trees.stat_stream import Leave, encode_enter, encode_leave
from backstay.storage.memory import MemoryStorage
from backstay.testing import FakeClock
from backstay.trust.secrets import Secret
from tests.formats.damage import DAMAGES
from tests.formats.damage_without_keys import further_slot
from tests.formats.engine import examine
from tests.formats.forge import Change, Damage, Forge, Objects, environment, forged, objects_of, stranger
from tests.formats.make_golden import COST, PASSPHRASE, stored_expectation, stored_objects
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


def with_a_third_epoch(objects: Objects) -> tuple[Objects, str]:
    """The golden repository with one more snapshot, under one more epoch; that snapshot's id."""
    forge = Forge(objects)
    forge.keyring.begin_epoch(forge.repository.clock)
    forge.tree([forge.file()])
    return forge.objects, forge.newest.id


@pytest.mark.parametrize("length", [None, 91, 0], ids=["a bit flipped", "no header", "empty"])
def test_a_damaged_epoch_leaves_what_others_sealed_readable(
    golden: Objects, tmp_path: Path, length: int | None
) -> None:
    objects, newest = with_a_third_epoch(golden)
    record = bytearray(objects["keys/epochs/00000003"])
    record[-1] ^= 1
    outcome = examine({**objects, "keys/epochs/00000003": bytes(record[:length])}, tmp_path, TREES)
    assert any(newest in told for told in outcome.told)
    assert outcome.restored == 1


@pytest.mark.parametrize("damage", ["a bit flipped", "empty", "of a foreign repository"])
def test_a_damaged_compromise_mark_leaves_its_epoch_readable(golden: Objects, tmp_path: Path, damage: str) -> None:
    change = next(one.change for one in DAMAGES if one.name == f"compromise mark: {damage}")
    assert examine(change(golden), tmp_path, TREES).restored == 1


def test_an_epoch_of_an_interrupted_creation_is_ignored(golden: Objects, tmp_path: Path) -> None:
    """Its number is taken, and no more: readers see nothing of it, writers take the next one."""
    objects = {**golden, "keys/epochs/00000003": stranger()["keys/epochs/00000001"]}
    outcome = examine(objects, tmp_path / "restored", TREES)
    assert (outcome.told, outcome.restored) == ([], 1)
    assert verified(objects, tmp_path) == (0, "", "")
    forge = Forge(objects)
    assert forge.keyring.begin_epoch(forge.repository.clock).number == 4


@pytest.mark.parametrize("damage", [d for d in DAMAGES if d.name.startswith("drop of a live")], ids=lambda d: d.name)
def test_a_drop_that_cannot_be_opened_deletes_nothing(golden: Objects, tmp_path: Path, damage: Damage) -> None:
    outcome = examine(damage.change(golden), tmp_path, TREES)
    assert outcome.told
    assert outcome.restored == 1
    assert (tmp_path / max(TREES)).is_dir()


def test_a_passphrase_may_be_typed_composed_or_not(tmp_path: Path) -> None:
    typed = ("grüße", "gru\u0308ße")
    storage = MemoryStorage(clock=FakeClock())
    with Repository.create(storage, Secret.passphrase(typed[0]), environment=environment(), cost=COST):
        pass
    for text in typed:
        Repository.open(storage, Secret.passphrase(text), environment=environment()).close()
        assert verified(objects_of(storage), tmp_path / text, text) == (0, "", "")


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


def verified(objects: Objects, place: Path, passphrase: str = PASSPHRASE) -> tuple[int, str, str]:
    """Exit status and output of the dumb verifier."""
    repository, key = unpacked(objects, place / "repository"), place / "passphrase"
    key.write_text(passphrase)
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        status = dumb_verifier.main([str(repository), "--password-file", str(key)])
    return status, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_the_dumb_verifier_finds_it(golden: Objects, tmp_path: Path, damage: Damage) -> None:
    status, told, _ = verified(damage.change(golden), tmp_path)
    assert (status != 0) == damage.verifier, told
    assert (told != "") == damage.verifier
    assert damage.says in told


def test_who_checks_an_epoch_finds_a_mark_that_is_about_another(golden: Objects) -> None:
    """Whoever reads does not: the epoch is taken for unmarked."""
    damage = next(one for one in DAMAGES if one.name == "compromise mark: about another epoch")
    for objects, is_good in ((golden, True), (damage.change(golden), False)):
        with Forge(objects).repository as repository:
            if is_good:
                repository.keyring.check(1)
            else:
                with pytest.raises(CorruptedBackup, match="marks another epoch"):
                    repository.keyring.check(1)


def _with_stats(make: Callable[[Content], bytes]) -> Change:
    """A snapshot of one file whose stat stream is made of its root."""

    def snapshot(forge: Forge) -> Objects:
        root = Content(0, forge.chunks(encode_node(forge.file())))
        return forge.snapshot(root, stat_stream=Content(0, forge.chunks(make(root))))

    return forged(snapshot)


def _stats(name: bytes, root: Content) -> bytes:
    return encode_enter(name, []) + encode_leave(Leave(root, 0, 0))


def _named(name: str) -> Change:
    return next(damage.change for damage in DAMAGES if damage.name == name)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_with_stats(lambda root: _stats(b"", root)), None),
        (_with_stats(lambda root: _stats(b"below", root)), "does not begin at the root"),
        (_with_stats(lambda _: _stats(b"", Content(0, bytes(32)))), "ends at another root"),
        (_named("snapshot: replaced by another, well signed"), "is not the one that"),
        (_named("snapshot: directories without end"), "nested too deeply"),
    ],
    ids=["good", "stats of another directory", "stats of another root", "replaced", "without end"],
)
def test_verification_finds_what_no_reader_can(golden: Objects, change: Change, says: str | None) -> None:
    with Forge(change(golden)).repository as repository:
        found = [str(finding) for finding in run_verify(repository).findings]
    assert found == [] if says is None else any(says in one for one in found), found
