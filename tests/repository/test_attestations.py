"""Stored attestations: who counts, what is told, where they go."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.errors import BadAttestation, NotFound
from backstay.operations.copies.export import export_snapshots
from backstay.operations.copies.mirror import copy_objects
from backstay.operations.verify.run import run_verify
from backstay.repository.attestations import AttestationStore
from backstay.repository.collection.collector import Collector
from backstay.repository.format import attestation_name, graph_deletion_name, snapshot_name
from backstay.repository.repository import Repository
from backstay.storage.memory import MemoryStorage
from backstay.testing.clock import FakeClock
from backstay.trust.attestation import MAX_ENVELOPE
from backstay.trust.quorum import QuorumPolicy
from backstay.trust.secrets import Secret
from backstay.trust.validators import Validator
from tests.operations.copies import SECRET, SMALL_PACKS, Store, back_up, make_source, open_alone

ANNA, BERT, CARL = (Validator.generate(name) for name in ("anna", "bert", "carl"))
POLICY = QuorumPolicy(required=2, validators=[ANNA.public, BERT.public])
CLOCK = FakeClock()


class World:
    """A repository with two snapshots."""

    def __init__(self, place: Path) -> None:
        self.store = Store("repository")
        self.repository = Repository.create(self.store, SECRET, environment=SMALL_PACKS)
        source = make_source(place / "source", files=6)
        self.first, self.second = (back_up(self.repository, source) for _ in range(2))

    def attest(self, validator: Validator, snapshot: str = "") -> bool:
        ulid = snapshot or self.first
        return self.repository.attestations.attest(ulid, self.repository.snapshots.digest(ulid), validator, CLOCK)

    def standing(self, snapshot: str = "") -> tuple[bool, tuple[str, ...]]:
        found = self.repository.attestations.standing(snapshot or self.first, POLICY)
        return found.accepted, found.validated_by

    def name(self, validator: Validator, snapshot: str = "") -> str:
        return attestation_name(snapshot or self.first, validator.public.key_id)

    def problems(self) -> dict[str, str]:
        """What a verification tells of attestations and marks."""
        report = run_verify(self.repository)
        return {
            finding.subject: finding.message
            for finding in report.findings
            if finding.subject.startswith(("attestations/", "graphs/"))
        }


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_two_of_two_accept_a_snapshot_and_no_other(world: World) -> None:
    assert world.standing() == (False, ())
    assert world.attest(ANNA)
    assert world.standing() == (False, ("anna",))
    assert world.attest(BERT)
    assert world.standing() == (True, ("anna", "bert"))
    assert world.standing(world.second) == (False, ())
    assert world.problems() == {}


def test_who_signs_twice_counts_once(world: World) -> None:
    assert world.attest(ANNA)
    assert not world.attest(ANNA)
    assert world.standing() == (False, ("anna",))


def test_a_stranger_counts_for_nothing(world: World) -> None:
    world.attest(ANNA)
    world.attest(CARL)
    assert world.standing() == (False, ("anna",))


def test_an_auditor_needs_no_key_of_the_repository(world: World) -> None:
    world.attest(ANNA)
    world.attest(BERT)
    auditor = AttestationStore.of_store(world.store)
    assert auditor.standing(world.first, POLICY).accepted
    assert list(auditor.problems()) == []
    name = snapshot_name(world.first)
    *whole, last = world.store.retrieve(name)
    world.store.store(name, bytes([*whole, last ^ 1]), overwrite=True)
    assert not auditor.standing(world.first, POLICY).accepted
    assert len(list(auditor.problems())) == 2


def test_one_that_was_moved_to_another_snapshot_counts_for_nothing_and_is_told(world: World) -> None:
    world.attest(ANNA)
    name = world.name(ANNA, world.second)
    world.store.store(name, world.store.retrieve(world.name(ANNA)))
    assert world.standing(world.second) == (False, ())
    assert name in world.problems()


def test_one_under_another_key_counts_for_nothing_and_is_told(world: World) -> None:
    world.attest(CARL)
    world.store.store(world.name(ANNA), world.store.retrieve(world.name(CARL)))
    assert world.standing() == (False, ())
    assert world.name(ANNA) in world.problems()


def test_one_of_another_repository_counts_for_nothing_and_is_told(world: World) -> None:
    data = ANNA.sign(
        repository="00" * 16,
        snapshot=world.first,
        digest=world.repository.snapshots.digest(world.first),
        attested="2026-01-01T00:00:00Z",
    )
    world.store.store(world.name(ANNA), data)
    assert world.standing() == (False, ())
    assert "another repository" in world.problems()[world.name(ANNA)]


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 40, b" " * (MAX_ENVELOPE + 1)])
def test_one_that_is_torn_or_foreign_counts_for_nothing_is_told_and_is_replaced(world: World, data: bytes) -> None:
    world.store.store(world.name(ANNA), data)
    assert world.standing() == (False, ())
    assert [*world.problems()] == [world.name(ANNA)]
    assert world.attest(ANNA)
    assert world.standing() == (False, ("anna",))
    assert world.problems() == {}


def test_foreign_names_are_told(world: World) -> None:
    world.store.store(f"attestations/{world.first}/anna", b"")
    world.store.store("attestations/stray", b"")
    world.store.store("graphs/stray", b"")
    assert len(world.problems()) == 3
    assert world.standing() == (False, ())


def test_a_snapshot_that_was_replaced_has_no_attestations_any_more(world: World) -> None:
    world.attest(ANNA)
    second = world.store.retrieve(snapshot_name(world.second))
    world.store.store(snapshot_name(world.first), second, overwrite=True)
    assert not AttestationStore.of_store(world.store).standing(world.first, POLICY).validated_by
    assert "other bytes" in dict(AttestationStore.of_store(world.store).problems())[world.name(ANNA)].title


def test_an_attestation_of_a_lost_snapshot_is_told(world: World) -> None:
    world.attest(ANNA)
    world.store.delete(snapshot_name(world.first))
    world.repository = open_alone(world.store)
    assert "not there" in world.problems()[world.name(ANNA)]


def test_they_go_with_their_snapshot(world: World) -> None:
    world.attest(ANNA)
    world.attest(ANNA, world.second)
    world.repository.snapshots.drop(world.first, "", CLOCK)
    assert world.problems() == {}
    collector = Collector(world.repository)
    collector.execute(collector.plan())
    assert [info.name for info in world.store.list("attestations/")] == [world.name(ANNA, world.second)]


def test_one_that_came_after_its_snapshot_had_gone_goes_with_the_next_collection(world: World) -> None:
    digest = world.repository.snapshots.digest(world.first)
    world.repository.snapshots.drop(world.first, "", CLOCK)
    for _ in range(2):
        collector = Collector(world.repository)
        collector.execute(collector.plan())
        world.repository.attestations.attest(world.first, digest, ANNA, CLOCK)
    assert world.problems() == {}
    collector = Collector(world.repository)
    collector.execute(collector.plan())
    assert list(world.store.list("attestations/")) == []


def test_a_bit_identical_copy_has_them_and_a_forged_one_stays_behind(world: World) -> None:
    world.attest(ANNA)
    world.attest(BERT)
    world.store.store(world.name(CARL), b"forged")
    copy = Store("copy")
    result = copy_objects(world.repository, copy)
    assert [finding.subject for finding in result.findings] == [world.name(CARL)]
    assert AttestationStore.of_store(copy).standing(world.first, POLICY).accepted
    world.repository.snapshots.drop(world.first, "", CLOCK)
    collector = Collector(world.repository)
    collector.execute(collector.plan())
    copy_objects(world.repository, copy)
    assert list(copy.list("attestations/")) == []


def test_a_medium_has_them_and_gets_later_ones(world: World) -> None:
    world.attest(ANNA)
    world.store.store(world.name(CARL), b"forged")
    medium = MemoryStorage()
    manifests = [world.repository.snapshots.get(world.first)]
    export_snapshots(world.repository, medium, manifests)
    assert AttestationStore.of_store(medium).standing(world.first, POLICY).validated_by == ("anna",)
    world.attest(BERT)
    export_snapshots(world.repository, medium, manifests)
    assert AttestationStore.of_store(medium).standing(world.first, POLICY).accepted
    assert len(list(medium.list("attestations/"))) == 2


def test_a_mark_of_deletion_is_genuine_or_counts_for_nothing(world: World) -> None:
    marks = world.repository.snapshots.graph_deletions
    assert marks.mark(world.first, "old", CLOCK)
    assert not marks.mark(world.first, "again", CLOCK)
    assert marks.marked()[world.first].reason == "old"
    world.store.store(graph_deletion_name(world.second), world.store.retrieve(graph_deletion_name(world.first)))
    assert set(marks.marked()) == {world.first}
    assert [*world.problems()] == [graph_deletion_name(world.second)]
    marks.unmark(world.first)
    assert not marks.is_marked(world.first)


def test_a_marked_snapshot_cannot_be_held(world: World) -> None:
    world.repository.snapshots.graph_deletions.mark(world.first, "", CLOCK)
    with pytest.raises(NotFound, match="deleted"):
        world.repository.snapshots.hold(world.first, "mine", CLOCK)
    assert not world.repository.snapshots.holds.held([world.first])


def test_a_store_without_a_repository_has_none() -> None:
    with pytest.raises(Exception, match=r"repo\.json"):
        AttestationStore.of_store(MemoryStorage())


def test_every_attestation_is_bound_to_its_repository() -> None:
    one, other = (Repository.create(MemoryStorage(), Secret.new_keyfile()) for _ in range(2))
    data = ANNA.sign(repository=one.header.uuid, snapshot="0" * 26, digest=b"d" * 32, attested="2026-01-01T00:00:00Z")
    name = attestation_name("0" * 26, ANNA.public.key_id)
    assert one.attestations.check(name, data).snapshot == "0" * 26
    with pytest.raises(BadAttestation):
        other.attestations.check(name, data)
