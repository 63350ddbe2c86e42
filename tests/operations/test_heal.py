"""A copy heals what the other lost, and what both lost is told exactly."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from backstay.errors import InvalidRequest, NotFound, StorageUnavailable
from backstay.operations.repair.heal import heal_from_copy
from backstay.operations.repair.result import RepairResult
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.checking.genuine import Genuine
from backstay.repository.collection.collector import Collector
from backstay.repository.format import REPO, RecordKind
from backstay.repository.logs.tiers import TierRecord
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import SIGNED_AS, DropRecord
from backstay.storage.crash_order import is_transient
from backstay.storage.mirrored import Mirrored
from backstay.storage.tiered import NOTES, RULES
from backstay.testing import CrashPoint, Fault, FaultyBackend
from backstay.trust.secrets import Secret
from tests.operations.copies import (
    SECRET,
    SMALL_PACKS,
    Store,
    back_up,
    contents,
    damaged,
    kinds,
    make_repository,
    make_source,
    open_alone,
    open_mirrored,
    restored,
)


@dataclass
class Golden:
    """A repository as it was written, and what its newest snapshot holds."""

    objects: dict[str, bytes]
    source: Path
    contents: dict[str, bytes | str]
    snapshots: list[str]

    @property
    def newest(self) -> str:
        return self.snapshots[-1]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Golden:
    source = make_source(tmp_path_factory.mktemp("golden") / "source")
    first, second = Store("first"), Store("second")
    mirror = Mirrored([first, second])
    make_repository(mirror, source)
    objects = {name: data for name, data in first.objects().items() if not is_transient(name)}
    assert objects == second.objects(), "a mirror is the same, bit for bit"
    assert kinds(objects) == {
        "repo.json",
        "keys",
        "packs",
        "meta",
        "index",
        "snapshots",
        "drops",
        "gc",
        "wal",
        "attestations",
    }
    with open_alone(first) as repository:
        return Golden(objects, source, contents(source), [m.id for m in repository.snapshots.live()])


def pair(golden: Golden) -> tuple[Store, Store]:
    return Store("a", golden.objects), Store("b", golden.objects)


def heal(a: Store, b: Store, packs: list[str] | None = None) -> RepairResult:
    with open_mirrored(a, b) as repository:
        return heal_from_copy(repository, a, b, packs)


def assert_restores(golden: Golden, to: Path, *stores: Store) -> None:
    with open_mirrored(*stores) as repository:
        found, errors = restored(repository, golden.newest, to, golden.source)
    assert errors == []
    assert found == golden.contents


@pytest.mark.parametrize("how", ["lost", "damaged", "cut"])
def test_each_object_in_turn(golden: Golden, tmp_path: Path, how: str) -> None:
    rng = random.Random(how)
    a, b = pair(golden)
    for number, name in enumerate(sorted(golden.objects)):
        data = golden.objects[name]
        a.delete(name)
        if how != "lost":
            a.store(name, damaged(data, rng) if how == "damaged" else data[: len(data) // 2])
        assert_restores(golden, tmp_path / str(number), a, b)
        result = heal(a, b)
        assert result.objects_healed == (name,)
        assert (result.findings, result.lost) == ((), ())
        assert a.objects() == golden.objects, name
        assert b.objects() == golden.objects
    assert heal(a, b).changed is False


def test_disjoint_loss_of_a_third_in_both(golden: Golden, tmp_path: Path) -> None:
    names = sorted(golden.objects)
    a, b = pair(golden)
    for seed in range(3):
        rng = random.Random(seed)
        lost = rng.sample(names, len(names) * 6 // 10)
        for number, name in enumerate(lost):
            store = a if number % 2 else b
            data = golden.objects[name]
            store.delete(name)
            if rng.random() < 0.5:
                store.store(name, damaged(data, rng))
        assert_restores(golden, tmp_path / str(seed), a, b)
        assert heal(a, b).findings == ()
        assert a.objects() == golden.objects
        assert heal(b, a).findings == ()
        assert b.objects() == golden.objects
    with open_alone(a) as repository:
        assert run_verify(repository, None, VerifyOptions(read_data=1.0)).ok


def test_a_whole_store_that_was_lost(golden: Golden) -> None:
    a, b = Store("a"), Store("b", golden.objects)
    assert set(heal(a, b).objects_healed) == set(golden.objects)
    assert a.objects() == golden.objects


def test_what_both_lost_is_told_file_by_file(golden: Golden, tmp_path: Path) -> None:
    packs = [name for name in golden.objects if name.startswith("packs/")]
    some = 0
    for number, name in enumerate(packs):
        a, b = pair(golden)
        a.delete(name)
        b.delete(name)
        result = heal(a, b)
        assert [finding.subject for finding in result.findings] == [name]
        told = {lost.path for lost in result.lost if lost.snapshot == golden.newest}
        with open_mirrored(a, b) as repository:
            found, errors = restored(repository, golden.newest, tmp_path / str(number), golden.source)
        missing = {f"{golden.source}/{path}" for path, data in golden.contents.items() if found.get(path) != data}
        assert told == missing == set(errors)
        some += bool(told)
    assert some > 1


def spoil(store: Store, name: str, *places: int) -> None:
    changed = bytearray(store.retrieve(name))
    for at in places:
        changed[at] ^= 1
    store.store(name, changed, overwrite=True)


def largest_pack(golden: Golden) -> str:
    return max((name for name in golden.objects if name.startswith("packs/")), key=lambda n: len(golden.objects[n]))


def test_an_object_damaged_at_different_places_is_put_together(golden: Golden, tmp_path: Path) -> None:
    a, b = pair(golden)
    name = largest_pack(golden)
    end = len(golden.objects[name])
    spoil(a, name, 200, end // 2)
    spoil(b, name, end // 3, end - 20)
    assert heal(a, b).objects_healed == (name,)
    assert a.objects() == golden.objects
    assert_restores(golden, tmp_path / "out", a, b)


def test_a_pack_damaged_in_both_loses_only_what_no_copy_can_read(golden: Golden, tmp_path: Path) -> None:
    """Too many places to put it together; but most blobs are whole in one copy or the other."""
    a, b = pair(golden)
    name = largest_pack(golden)
    end = len(golden.objects[name])
    spoil(a, name, *range(2000, end // 2, 2 * 4096))
    spoil(b, name, *range(end - 100, end // 2, -2 * 4096))
    result = heal(a, b)
    assert [finding.subject for finding in result.findings] == [name]
    told = {lost.path for lost in result.lost if lost.snapshot == golden.newest}
    with open_mirrored(a, b) as repository:
        found, errors = restored(repository, golden.newest, tmp_path / "out", golden.source)
    missing = {f"{golden.source}/{path}" for path, data in golden.contents.items() if found.get(path) != data}
    assert told == missing == set(errors)


def test_only_what_was_asked_for(golden: Golden) -> None:
    a, b = pair(golden)
    one, two = [name for name in sorted(golden.objects) if name.startswith("packs/")][:2]
    a.delete(one)
    a.delete(two)
    assert heal(a, b, [one.rpartition("/")[2][:12]]).objects_healed == (one,)
    assert not a.exists(two)
    with pytest.raises(NotFound):
        heal(a, b, ["ffff" * 16])


def test_a_run_that_was_interrupted_is_continued(golden: Golden) -> None:
    a, b = Store("a"), Store("b", golden.objects)
    faulty = FaultyBackend(a)
    faulty.script(Fault(kind="crash_before", operation="store", at=len(golden.objects) // 2))
    with open_alone(b) as repository, pytest.raises(CrashPoint):
        heal_from_copy(repository, faulty, b)
    assert not any(name.startswith("snapshots/") for name in a.objects())
    heal(a, b)
    assert a.objects() == golden.objects


def test_what_the_disk_cannot_read_is_written_anew(golden: Golden) -> None:
    """A bad sector; the rest of the store can be read and written."""
    one_of_each = {name.partition("/")[0]: name for name in sorted(golden.objects) if name != REPO}
    for name in one_of_each.values():
        a, b = pair(golden)
        faulty = FaultyBackend(a)
        faulty.script(Fault(kind="error_before", operation="retrieve", prefix=name, repeat=True))
        with open_mirrored(faulty, b) as repository:
            result = heal_from_copy(repository, faulty, b)
        assert (result.objects_healed, result.findings, result.lost) == ((name,), (), ())
        written = {call.name for call in faulty.calls if call.operation == "store" and not is_transient(call.name)}
        assert written == {name}
        assert a.objects() == golden.objects


def test_what_cannot_be_read_is_told_for_no_loss_when_the_copy_lacks_it(golden: Golden) -> None:
    a, b = pair(golden)
    name = next(name for name in sorted(golden.objects) if name.startswith("packs/"))
    b.delete(name)
    faulty = FaultyBackend(a)
    faulty.script(Fault(kind="error_before", operation="retrieve", prefix=name, repeat=True))
    with open_mirrored(faulty, b) as repository, pytest.raises(StorageUnavailable, match=name):
        heal_from_copy(repository, faulty, b)
    assert a.objects() == golden.objects


def test_another_repository_heals_nothing(golden: Golden, tmp_path: Path) -> None:
    a, foreign = Store("a", golden.objects), Store("foreign")
    with Repository.create(foreign, SECRET, environment=SMALL_PACKS) as repository:
        back_up(repository, make_source(tmp_path / "other", files=3))
    before = a.objects(), foreign.objects()
    for one, two in ((a, foreign), (foreign, a)):
        with open_alone(a) as repository, pytest.raises(InvalidRequest, match="is no copy of this repository"):
            heal_from_copy(repository, one, two)
    assert (a.objects(), foreign.objects()) == before


def test_what_was_deleted_on_purpose_does_not_come_back(golden: Golden) -> None:
    a, b = pair(golden)
    with open_alone(a) as repository:
        repository.snapshots.drop(golden.snapshots[0], "for a test", repository.clock)
        collector = Collector(repository)
        collector.execute(collector.plan())
        spare = next(slot.id for slot in repository.slots.list() if slot.note == "third")
        repository.slots.remove(spare, repository.clock)
    after = a.objects()
    assert set(golden.objects) - set(after), "something was deleted"
    with Repository.open(Mirrored([a, b]), SECRET) as repository:
        assert heal_from_copy(repository, a, b).objects_healed == ()
    assert a.objects() == after


def test_objects_of_unknown_kinds_come_back_as_they_are(golden: Golden) -> None:
    a, b = pair(golden)
    b.store("log/tile/0/000", b"something that this version does not know")
    assert heal(a, b).objects_healed == ("log/tile/0/000",)


def test_every_kind_of_object_is_checked(golden: Golden) -> None:
    rng = random.Random(4)
    with open_alone(Store("a", golden.objects)) as repository:
        genuine = Genuine(repository)
        for name, data in golden.objects.items():
            assert genuine.is_whole(name, data) is True, name
            assert genuine.is_whole(name, damaged(data, rng)) is False, name
            assert genuine.is_whole(name, b"") is False, name


def test_a_slot_of_another_secret_is_not_needed(golden: Golden) -> None:
    with pytest.raises(Exception, match="does not open"):
        Repository.open(Store("a", golden.objects), Secret.new_keyfile())


def _foreign(repository: Repository, objects: dict[str, bytes]) -> dict[str, bytes]:
    """Authentic bytes, each under a name that no writer gives them."""

    def one(prefix: str) -> bytes:
        return next(data for name, data in sorted(objects.items()) if name.startswith(prefix))

    keyring = repository.keyring
    manifest = msgspec.structs.replace(repository.snapshots.live()[-1], id="notes")
    body = keyring.seal(RecordKind.SNAPSHOT, manifest)
    signer = keyring.current.signer
    return {
        REPO: one("snapshots/"),
        f"{REPO}.old": one(REPO),
        f"{NOTES}{'0' * 64}": b"cold",
        "keys/epochs/1": one("keys/epochs/00000001"),
        "keys/epochs/notes": one("keys/epochs/00000001"),
        "keys/removed/notes": one("keys/removed/"),
        "snapshots/notes": body + signer.public + signer.sign(SIGNED_AS, body),
        "drops/notes": keyring.seal(RecordKind.DROP, DropRecord("notes", 0, "")),
        "gc/notes": one("gc/00000001"),
        f"{RULES}1": keyring.seal(RecordKind.TIER_RULE, TierRecord(1, None, 0, 0)),
        f"{RULES}notes": keyring.seal(RecordKind.TIER_RULE, TierRecord(1, None, 0, 0)),
        f"{RULES}00000002": keyring.seal(RecordKind.TIER_RULE, TierRecord(1, None, 0, 0)),
    }


def test_what_is_authentic_is_not_whole_under_the_name_of_something_else(golden: Golden) -> None:
    with open_alone(Store("a", golden.objects)) as repository:
        genuine = Genuine(repository)
        assert genuine.is_whole(f"{NOTES}{'0' * 64}", b"") is True
        good = repository.keyring.seal(RecordKind.TIER_RULE, TierRecord(1, None, 0, 0))
        assert genuine.is_whole(f"{RULES}00000001", good) is True
        found = {name: genuine.is_whole(name, data) for name, data in _foreign(repository, golden.objects).items()}
        assert found == dict.fromkeys(found, False)
