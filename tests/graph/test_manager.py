"""The manager of graph snapshots: what it makes, finds, accepts, restores and tells."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from backstay.core.events import Event, GraphSnapshotCreated, ValidationFailed
from backstay.errors import (
    CycleFound,
    HoldViolation,
    Interrupted,
    InvalidNode,
    InvalidRequest,
    MissingDependency,
    NotFound,
    OutputMissing,
    ValueBusy,
    ValueInUse,
)
from backstay.graph.manager import GraphBackupManager, RestoreMeans
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node, NodeMetadata
from backstay.graph.policy import RegenerationPolicy
from backstay.graph.recompute import Recomputers
from backstay.repository.repository import Repository
from backstay.storage.backend import Buffer
from backstay.storage.memory import MemoryStorage
from backstay.trust.quorum import QuorumPolicy
from backstay.trust.validators import Validator
from tests.graph.stored import SECRET, Stored, made

V = [Validator.generate(f"v{number}") for number in range(3)]
TWO_OF_THREE = QuorumPolicy(required=2, validators=[validator.public for validator in V])


@pytest.fixture
def stored() -> Stored:
    return Stored()


def test_a_snapshot_gives_back_the_graph_that_was_stored(stored: Stored) -> None:
    graph = stored.graph({"a": b"1", "b": b"2"}, name="etl")
    graph.add(Node(id="c", deps=("a", "b"), status="pending"))
    told = stored.manager(graph).create_snapshot("first", ["nightly", "x"])
    found = stored.manager().get_snapshot(told.id)
    assert found.graph == graph
    assert (found.name, found.description, found.tags, found.nodes, found.values) == (
        "etl",
        "first",
        ("nightly", "x"),
        3,
        2,
    )
    assert (found.state, found.validated_by, found.time) == ("accepted", (), stored.clock.now())
    assert stored.topics() == ["backup.snapshot.created"]


def test_managers_of_a_graph_see_their_own_and_those_without_see_all(stored: Stored) -> None:
    one, two = stored.graph({"a": b"1"}, name="one"), stored.graph({"a": b"1"}, name="two")
    first = stored.manager(one).create_snapshot()
    second = stored.manager(two).create_snapshot()
    assert [told.id for told in stored.manager(one).list_snapshots()] == [first.id]
    assert {told.id for told in stored.manager().list_snapshots()} == {first.id, second.id}
    assert stored.manager(MetadataGraph("three")).list_snapshots() == []
    with pytest.raises(InvalidRequest, match="no graph"):
        stored.manager().create_snapshot()
    assert stored.manager(one).in_force("two").id == second.id
    for manager in (stored.manager(), stored.manager(one)):
        with pytest.raises(InvalidRequest, match="its name is empty"):
            manager.in_force("")


def test_a_second_snapshot_of_the_same_graph_stores_nearly_nothing(stored: Stored) -> None:
    graph = stored.graph({"a": b"1"})
    for number in range(3000):
        graph.add(Node(id=f"n{number}", deps=("a",), status="pending", trace_id=sha256(b"%d" % number).hexdigest()))
    sizes = []
    one, other = stored.manager(graph), stored.manager(graph)
    for manager in (one, one, other):
        before = sum(info.size for info in stored.store.list("packs/"))
        manager.create_snapshot()
        sizes.append(sum(info.size for info in stored.store.list("packs/")) - before)
    assert sizes[0] > 20_000
    assert sizes[1] < sizes[0] / 50
    assert sizes[2] < sizes[0] / 50


def test_a_snapshot_of_a_changed_graph_is_not_the_earlier_one(stored: Stored) -> None:
    graph = stored.graph({"a": b"1"})
    manager = stored.manager(graph)
    first = manager.create_snapshot()
    graph.replace(made("a", stored.values.store(b"2")))
    graph.add(Node(id="b", deps=("a",)))
    second = manager.create_snapshot()
    assert len(manager.get_snapshot(first.id).graph) == 1
    assert manager.get_snapshot(second.id).graph == graph
    graph.add(Node(id="c", deps=("ghost",)))
    with pytest.raises(MissingDependency):
        manager.create_snapshot()


def test_what_cannot_be_restored_is_no_snapshot(stored: Stored) -> None:
    cyclic = MetadataGraph()
    for node, dep in (("a", "b"), ("b", "c"), ("c", "a")):
        cyclic.add(Node(id=node, deps=(dep,)))
    with pytest.raises(CycleFound, match="a → b → c → a"):
        stored.manager(cyclic).create_snapshot()
    lacking = MetadataGraph()
    lacking.add(made("a", "sha256:" + "0" * 64))
    with pytest.raises(OutputMissing, match="0000"):
        stored.manager(lacking).create_snapshot()
    assert stored.manager().list_snapshots() == []
    told = [event for event in stored.events if isinstance(event, ValidationFailed)]
    assert ["a → b → c → a" in told[0].reason, "0000" in told[1].reason] == [True, True]


def test_no_output_of_a_snapshot_may_lie_among_the_files_of_backstay(stored: Stored) -> None:
    graph = MetadataGraph()
    graph.add(Node(id="a", metadata=NodeMetadata(path=".backstay/journal.json")))
    with pytest.raises(InvalidNode, match="node a cannot have its output at"):
        stored.manager(graph).create_snapshot()
    graph.replace(Node(id="a", metadata=NodeMetadata(path=".backstay.json")))
    assert stored.manager(graph).create_snapshot().nodes == 1


@pytest.mark.parametrize("stored_again", [False, True])
def test_a_value_whose_pack_is_lost_makes_no_snapshot_until_it_is_stored_again(
    stored: Stored, *, stored_again: bool
) -> None:
    large = Random(1).randbytes(3 << 20)
    graph = stored.graph({"small": b"1", "large": large})
    manager = stored.manager(graph)
    manager.create_snapshot()
    for info in list(stored.store.list("packs/")):
        stored.store.delete(info.name)
    if stored_again:
        stored.values.store(large)
        told = manager.create_snapshot()
        assert stored.manager().restore_snapshot(told.id).ok
        return
    before = [told.id for told in manager.list_snapshots()]
    for maker in (manager, stored.manager(graph)):  # also one that has made a snapshot of the same nodes
        with pytest.raises(OutputMissing, match="has lost the packs of") as raised:
            maker.create_snapshot()
        assert f"large ({graph['large'].hash})" in raised.value.cause
        assert "small" not in raised.value.cause
        assert "repair packs" in raised.value.hint
    assert [told.id for told in manager.list_snapshots()] == before


@pytest.mark.parametrize(
    ("description", "tags"), [("x" * 5000, []), ("", ["a\nb"]), ("", [""]), ("", ["t"] * 101), ("", "production")]
)
def test_texts_that_cannot_be_kept_are_refused(stored: Stored, description: str, tags: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        stored.manager(stored.graph({})).create_snapshot(description, tags)


def test_values_of_nodes_that_are_not_completed_may_be_missing_and_are_kept_if_they_are_there(stored: Stored) -> None:
    graph = MetadataGraph()
    there, given = stored.values.store(b"there"), stored.values.store(b"given")
    graph.add(Node(id="a", hash="sha256:" + "0" * 64, status="failed"))
    metadata = NodeMetadata(input_hashes=(given, "1" * 64))
    graph.add(Node(id="b", hash=there, status="computing", metadata=metadata))
    assert stored.manager(graph).create_snapshot().values == 2
    for key in (there, given):
        with pytest.raises(ValueInUse):
            stored.values.delete(key)


def test_unknown_ids_are_told_and_deleting_them_is_false(stored: Stored) -> None:
    manager = stored.manager(stored.graph({"a": b"1"}))
    for ulid in ("nonsense", "0" * 26, "../../x"):
        with pytest.raises(NotFound):
            manager.get_snapshot(ulid)
        assert manager.delete_snapshot(ulid) is False
    with pytest.raises(NotFound):
        manager.restore_snapshot()


# -- restoring


def test_a_plan_changes_nothing_and_a_restore_makes_lost_values_again(stored: Stored) -> None:
    graph = stored.graph({"a": b"1"})
    graph.add(made("b", stored.values.store(b"11"), "a").model_copy(update={"metadata": _capable("twice")}))
    manager = stored.manager(graph)
    shot = manager.create_snapshot()
    stored.values.delete(graph["b"].hash or "", force=True)
    recomputers = Recomputers()
    recomputers.recomputes("twice")(lambda node, inputs: inputs["a"].bytes() * 2)  # noqa: ARG005
    means = RestoreMeans(recomputers=recomputers)
    assert dict(manager.plan_restore(shot.id, means=means).counts) == {"reuse": 1, "recompute": 1}
    assert not stored.values.exists(graph["b"].hash or "")
    report = manager.restore_snapshot(shot.id, RegenerationPolicy(), means)
    assert report.ok
    assert stored.values.retrieve(graph["b"].hash or "") == b"11"


def _capable(capability: str) -> NodeMetadata:
    return NodeMetadata(capability=capability)


def test_what_cannot_be_had_is_told_by_node(stored: Stored) -> None:
    graph = stored.graph({"a": b"1", "b": b"2"})
    manager = stored.manager(graph)
    shot = manager.create_snapshot()
    stored.values.delete(graph["a"].hash or "", force=True)
    report = manager.restore_snapshot(shot.id)
    assert not report.ok
    failed = [event for event in stored.events if isinstance(event, ValidationFailed)]
    assert [event.node for event in failed] == ["a"]
    found = manager.verify(shot.id)
    assert [one.subject for one in found.findings] == [graph["a"].hash]


# -- deleting and holding


def test_a_deleted_snapshot_is_gone_at_once_and_its_values_with_the_collection(stored: Stored) -> None:
    graph = stored.graph({"a": b"1", "b": b"2"})
    manager = stored.manager(graph)
    first = manager.create_snapshot()
    graph.remove("b")
    second = manager.create_snapshot()
    assert manager.delete_snapshot(first.id)
    assert not manager.delete_snapshot(first.id)
    assert [told.id for told in manager.list_snapshots()] == [second.id]
    assert len([*stored.values.list()]) == 2
    assert manager.garbage_collect() == [stored.values.store(b"2")]
    assert manager.garbage_collect() == []
    assert stored.topics()[-1] == "backup.garbage.collected"
    assert [manifest.id for manifest in stored.repository.snapshots.shown()] == [second.id]
    assert list(stored.store.list("graphs/")) == []


def test_a_held_snapshot_is_not_deleted(stored: Stored) -> None:
    manager = stored.manager(stored.graph({"a": b"1"}))
    shot = manager.create_snapshot()
    stored.repository.snapshots.hold(shot.id, "case 7", stored.clock)
    with pytest.raises(HoldViolation):
        manager.delete_snapshot(shot.id)
    stored.clock.advance(100 * 86400)
    manager.create_snapshot()
    assert manager.garbage_collect(ttl_days=1) == []
    assert len(manager.list_snapshots()) == 2
    stored.repository.snapshots.release(shot.id, "", stored.clock)
    assert manager.delete_snapshot(shot.id)


def test_nothing_is_collected_while_a_snapshot_is_being_made(stored: Stored) -> None:
    graph = stored.graph({"a": b"1", "b": b"2"})
    manager = stored.manager(graph)
    shot = manager.create_snapshot()
    manager.delete_snapshot(shot.id)
    live = GraphBackupManager(Repository.open(stored.store, SECRET), graph)
    live_session = live.repository.begin_session()  # of this very process, which lives
    live.values.intend(live_session.id)
    with pytest.raises(ValueBusy):
        live.garbage_collect()
    assert len([*live.values.list()]) == 2
    live_session.close()
    assert len(live.garbage_collect()) == 2


class _Watched(MemoryStorage):
    """Calls `before` once before something is stored whose name begins so."""

    prefix, before = "", staticmethod(lambda: None)

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        if self.prefix and name.startswith(self.prefix):
            self.prefix, hook = "", self.before
            hook()
        super().store(name, data, overwrite=overwrite)


@pytest.mark.parametrize("at", ["sessions/", "packs/", "index/", "snapshots/"])
def test_values_stay_that_are_deleted_elsewhere_while_a_snapshot_refers_to_them(at: str) -> None:
    store = _Watched()
    stored = Stored(store)
    graph = stored.graph({"a": b"1"})
    old = stored.manager(graph).create_snapshot()
    stored.manager().delete_snapshot(old.id)
    live = GraphBackupManager(Repository.open(store, SECRET), graph)
    rival = GraphBackupManager(Repository.open(store, SECRET))
    outcome: list[object] = []

    def collect() -> None:
        try:
            outcome.append(rival.garbage_collect())
        except ValueBusy as error:
            outcome.append(error)

    graph.add(Node(id="more"))
    store.prefix, store.before = at, collect
    if at == "sessions/":  # the values go before their existence is looked at
        with pytest.raises(OutputMissing):
            live.create_snapshot()
        assert outcome == [[graph["a"].hash]]
        return
    shot = live.create_snapshot()
    assert isinstance(outcome[0], ValueBusy)
    assert rival.restore_snapshot(shot.id).ok
    assert rival.garbage_collect() == []
    assert stored.open().snapshots.get(shot.id)
    assert rival.values.exists(graph["a"].hash or "")


# -- plain files


def test_a_layout_is_imported_once_and_nobody_in_it_is_believed(stored: Stored, tmp_path: Path) -> None:
    graph = stored.graph({"a": b"1", "b": b"2"}, name="etl")
    manager = stored.manager(graph, quorum=TWO_OF_THREE)
    shot = manager.create_snapshot("first", ["x"])
    for validator in V:
        manager.attest(shot.id, validator)
    manager.export_layout(shot.id, tmp_path / "backups")
    other = Stored()
    other.clock.advance(86400)
    for _ in range(2):
        GraphBackupManager.import_layout(other.repository, tmp_path / "backups", quorum=TWO_OF_THREE)
    back = other.manager(quorum=TWO_OF_THREE)
    (told,) = back.list_snapshots()
    assert (told.state, told.description, told.tags, told.time) == ("pending", "first", ("x",), shot.time)
    assert {node.id for node in told.graph} == {"a", "b"}
    assert back.restore_snapshot(told.id, accept_pending=True).ok
    again = GraphBackupManager.import_layout(stored.repository, tmp_path / "backups")
    assert [found.id for found in again.list_snapshots()] == [shot.id]


@pytest.mark.parametrize("tag", ["x" * 201, "a\tb", ""])
def test_a_layout_whose_texts_cannot_be_kept_leaves_nothing(stored: Stored, tmp_path: Path, tag: str) -> None:
    manager = stored.manager(stored.graph({"a": b"1"}, name="etl"))
    manager.export_layout(manager.create_snapshot("first", ["good"]).id, tmp_path / "backups")
    manager.export_layout(manager.create_snapshot("second", ["bad"]).id, tmp_path / "backups")
    index = tmp_path / "backups" / "metadata" / "snapshots.json"
    index.write_text(index.read_text().replace('"bad"', json.dumps(tag)))
    other = Stored()
    before = {info.name for info in other.store.list()}
    with pytest.raises(InvalidRequest, match="cannot be a tag"):
        GraphBackupManager.import_layout(other.repository, tmp_path / "backups")
    assert {info.name for info in other.store.list()} == before
    assert list(other.values.list()) == []


def test_who_asks_to_stop_when_the_snapshot_is_made_gets_it(stored: Stored) -> None:
    def stop(event: Event) -> None:
        raise Interrupted("interrupted", cause="asked to stop")

    manager = GraphBackupManager(stored.repository, stored.graph({"a": b"1"}), events=stop)
    made = manager.create_snapshot()
    assert [found.id for found in manager.list_snapshots()] == [made.id]


def test_events_have_their_facts(stored: Stored) -> None:
    shot = stored.manager(stored.graph({"a": b"1"}, name="etl")).create_snapshot()
    (event,) = stored.events
    assert event == GraphSnapshotCreated(
        time=shot.time, snapshot=shot.id, graph="etl", state="accepted", nodes=1, values=1
    )
