"""Snapshots of graphs under a policy: who has to attest them, and what counts until they did."""

from __future__ import annotations

import pytest

from backstay.core.events import GraphSnapshotRestored
from backstay.errors import (
    QuorumNotReached,
    UnknownValidator,
)
from backstay.graph.manager import GraphBackupManager
from backstay.operations.copies.mirror import copy_objects
from backstay.repository.format import attestation_name
from backstay.repository.repository import Repository
from backstay.storage.memory import MemoryStorage
from backstay.trust.quorum import QuorumPolicy
from backstay.trust.validators import Validator
from tests.graph.stored import SECRET, Stored, made

V = [Validator.generate(f"v{number}") for number in range(3)]
TWO_OF_THREE = QuorumPolicy(required=2, validators=[validator.public for validator in V])


@pytest.fixture
def stored() -> Stored:
    return Stored()


def test_two_of_three_accept_a_snapshot(stored: Stored) -> None:
    manager = stored.manager(stored.graph({"a": b"1"}), quorum=TWO_OF_THREE)
    shot = manager.create_snapshot()
    assert (shot.state, shot.validated_by, shot.missing) == ("pending", (), ("v0", "v1", "v2"))
    for _ in range(2):
        assert manager.attest(shot.id, V[0]).state == "pending"
    with pytest.raises(UnknownValidator):
        manager.attest(shot.id, Validator.generate("stranger"))
    assert manager.attest(shot.id, V[2]).state == "accepted"
    assert manager.get_snapshot(shot.id).validated_by == ("v0", "v2")
    assert list(stored.topics()) == ["backup.snapshot.created", "backup.validation.failed"]


def test_a_pending_snapshot_leaves_the_accepted_one_in_force_and_blocks_nothing(stored: Stored) -> None:
    graph = stored.graph({"a": b"1"})
    manager = stored.manager(graph, quorum=TWO_OF_THREE)
    assert manager.newest_accepted() is None
    good = manager.create_snapshot()
    for validator in V[:2]:
        manager.attest(good.id, validator)
    graph.replace(made("a", stored.values.store(b"2")))
    manager.create_snapshot()
    in_force = manager.newest_accepted()
    assert in_force is not None
    assert in_force.id == good.id
    assert manager.restore_snapshot().ok
    restored = next(event for event in stored.events if isinstance(event, GraphSnapshotRestored))
    assert (restored.snapshot, restored.ok, restored.reused) == (good.id, True, 1)


def test_restoring_a_pending_snapshot_names_who_is_missing_and_can_be_insisted_on(stored: Stored) -> None:
    manager = stored.manager(stored.graph({"a": b"1"}), quorum=TWO_OF_THREE)
    shot = manager.create_snapshot()
    manager.attest(shot.id, V[1])
    for chosen in (None, shot.id):
        with pytest.raises(QuorumNotReached, match="v0, v2") as raised:
            manager.restore_snapshot(chosen)
        assert raised.value.missing == ("v0", "v2")
    assert manager.restore_snapshot(shot.id, accept_pending=True).ok


def test_without_the_policy_a_snapshot_made_under_one_is_pending(stored: Stored) -> None:
    graph = stored.graph({"a": b"1"})
    manager = stored.manager(graph, quorum=TWO_OF_THREE)
    shot = manager.create_snapshot()
    for validator in V:
        manager.attest(shot.id, validator)
    careless = stored.manager(graph)
    assert careless.get_snapshot(shot.id).state == "pending"
    with pytest.raises(QuorumNotReached, match="policy"):
        careless.restore_snapshot(shot.id)


def test_a_snapshot_made_without_a_policy_has_to_be_attested_where_there_is_one(stored: Stored) -> None:
    graph = stored.graph({"a": b"1"})
    shot = stored.manager(graph).create_snapshot()
    assert shot.state == "accepted"
    assert stored.manager(graph, quorum=TWO_OF_THREE).get_snapshot(shot.id).state == "pending"


def test_forged_attestations_count_for_nothing_and_are_told(stored: Stored) -> None:
    manager = stored.manager(stored.graph({"a": b"1"}), quorum=TWO_OF_THREE)
    first, second = manager.create_snapshot(), manager.create_snapshot()
    manager.attest(first.id, V[0])
    name = attestation_name(second.id, V[0].public.key_id)
    stored.store.store(name, stored.store.retrieve(attestation_name(first.id, V[0].public.key_id)))
    stored.store.store(attestation_name(second.id, V[1].public.key_id), b"{}")
    assert manager.get_snapshot(second.id).validated_by == ()
    stored.manager().attest(second.id, Validator.generate("stranger"))
    found = manager.verify()
    assert [(one.severity, name in one.subject) for one in found.findings if one.subject.startswith("att")] == [
        ("error", True),
        ("error", False),
    ]
    assert any("policy does not know" in one.message for one in found.findings if one.severity == "warning")


def test_attestations_hold_in_a_copy_of_the_repository(stored: Stored) -> None:
    manager = stored.manager(stored.graph({"a": b"1"}), quorum=TWO_OF_THREE)
    shot = manager.create_snapshot()
    for validator in V[:2]:
        manager.attest(shot.id, validator)
    copy = MemoryStorage()
    copy_objects(stored.repository, copy)
    there = GraphBackupManager(Repository.open(copy, SECRET), quorum=TWO_OF_THREE)
    assert there.get_snapshot(shot.id).state == "accepted"
    assert there.restore_snapshot(shot.id).ok
