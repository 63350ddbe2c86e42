"""What a program does with snapshots of its graphs: make, list, attest, restore, delete and collect them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from backstay.core.arguments import checks_arguments
from backstay.core.events import (
    EventSink,
    GarbageCollected,
    GraphSnapshotCreated,
    GraphSnapshotRestored,
    ValidationFailed,
    ignore,
    too_late_to_stop,
)
from backstay.core.subscribers import Subscribers
from backstay.errors import GraphError, InvalidRequest, NotFound, QuorumNotReached, UnknownValidator
from backstay.graph import recompute, validation
from backstay.graph.agents import Agent
from backstay.graph.apart import require_apart
from backstay.graph.collection import Expiry, GraphCollectionPlan, execute_collection, mark_deleted, plan_collection
from backstay.graph.executors import Executor
from backstay.graph.file_outputs import FileOutputs
from backstay.graph.foreign import other_graphs, required_by
from backstay.graph.layout import read_layout, write_layout
from backstay.graph.layout_index import LayoutSnapshot
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.outputs import Outputs, StoredOutputs
from backstay.graph.policy import RegenerationPolicy
from backstay.graph.recompute import Recomputers
from backstay.graph.regeneration import RegenerationOptions, plan_regeneration, regenerate
from backstay.graph.restore_plan import RestorePlan
from backstay.graph.restore_report import RestoreReport
from backstay.graph.snapshot_facts import IMPORTED
from backstay.graph.snapshot_writer import Stored, Wanted, store_graph
from backstay.graph.snapshots import GraphSnapshot, GraphSnapshots, no_graph_snapshot
from backstay.graph.validation import Validators
from backstay.graph.verification import GraphVerification, GraphVerifier, damaged_marks
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.trust.quorum import QuorumPolicy
from backstay.trust.validators import Validator


@checks_arguments
@dataclass(frozen=True, kw_only=True)
class RestoreMeans:
    """With what a graph is restored; the defaults use values from the repository, and what `@recomputes` registered.

    `executor` is one, or its name (`threads`, `processes`, `dask://HOST:PORT`).
    """

    outputs: Outputs | None = None
    executor: Executor | str | None = None
    recomputers: Recomputers = field(default_factory=lambda: recompute.DEFAULT)
    validators: Validators = field(default_factory=lambda: validation.DEFAULT)


@checks_arguments
class GraphBackupManager:
    """The graph snapshots of a repository; `graph` is the one that is snapshotted, and others are left alone.

    Without a graph it looks after all that are stored, and makes no snapshots. `quorum` says which of them count;
    `events` is told what happens, as are those who subscribe to the attribute of that name.
    Not for several threads at once.
    """

    def __init__(
        self,
        repository: Repository,
        graph: MetadataGraph | None = None,
        *,
        quorum: QuorumPolicy | None = None,
        events: EventSink = ignore,
    ) -> None:
        self.repository, self.graph, self.quorum = repository, graph, quorum
        self.values = ContentAddressableStorage(repository)
        self.events = Subscribers()
        self.events.subscribe(events)
        self._snapshots = GraphSnapshots(repository, quorum)
        self._last: Stored | None = None

    @property
    def _name(self) -> str | None:
        return self.graph.name if self.graph is not None else None

    # -- making

    def create_snapshot(self, description: str = "", tags: Sequence[str] = ()) -> GraphSnapshot:
        """Store the graph as it is now. With a quorum policy it is pending until enough validators attested it.

        Raises GraphError for a graph that no restore could order, OutputMissing when a value of a completed node is
        not stored; SnapshotFenced, StorageUnavailable. Nothing is there then that was not before.
        """
        if self.graph is None:
            raise InvalidRequest(
                "there is no graph to make a snapshot of",
                cause="this manager was made without one",
                hint="write GraphBackupManager(repository, graph)",
            )
        return self._create(Wanted(graph=self.graph, description=description, tags=_tags(tags)))

    def _create(self, wanted: Wanted) -> GraphSnapshot:
        with self._telling(wanted.graph.name):
            required = required_by(wanted.graph, self._snapshots)
            self._last = store_graph(self.repository, self.values, wanted, required, self._last, quorum=self.quorum)
        made = self._snapshots.told(self._last.manifest)
        too_late_to_stop(self.events)(
            GraphSnapshotCreated(
                time=made.time,
                snapshot=made.id,
                graph=made.name,
                state=made.state,
                nodes=made.nodes,
                values=made.values,
            )
        )
        return made

    def agent(self, agent_id: str) -> Agent:
        """The life of an agent: `with manager.agent("id") as agent: …` makes a snapshot at its start, at each
        `agent.milestone(…)` and at its end, also by an exception. Raises InvalidRequest."""
        return Agent(agent_id, self.create_snapshot)

    # -- looking

    def list_snapshots(self) -> list[GraphSnapshot]:
        """Those of the graph, or of all, oldest first. Raises CorruptedBackup."""
        return self._snapshots.all(self._name)

    def list_manifests(self) -> list[Manifest]:
        """The manifests of the same, of which nobody is asked whether they are accepted. Raises CorruptedBackup."""
        return self._snapshots.manifests(self._name)

    def get_snapshot(self, snapshot_id: str) -> GraphSnapshot:
        """One by its id, of whatever graph. Raises NotFound, CorruptedBackup."""
        return self._snapshots.told(self._snapshots.manifest(snapshot_id))

    def newest_accepted(self) -> GraphSnapshot | None:
        """The snapshot in force, of the graph or of all: the newest that is accepted."""
        found = self._snapshots.newest_accepted(self._name)
        return self._snapshots.told(found) if found is not None else None

    def in_force(self, name: str | None = None) -> GraphSnapshot:
        """The same, also by the name of a graph.

        Raises NotFound, InvalidRequest for an empty name, and QuorumNotReached when none is accepted yet.
        """
        if name == "":
            raise InvalidRequest(
                "it is not clear which graph is meant", cause="its name is empty", hint="leave the name out for any"
            )
        return self._snapshots.told(self._in_force(self._name if name is None else name))

    def verify(self, snapshot_id: str | None = None, *, read_data: bool = False) -> GraphVerification:
        """Check one snapshot, or all of the graph or of all graphs, with the values that they name."""
        verifier = GraphVerifier(self.repository, self.values, self._snapshots, self.quorum, read_data=read_data)
        if snapshot_id is not None:
            return verifier.run([self._snapshots.manifest(snapshot_id)], everything=False)
        for name, error in damaged_marks(self.repository):
            verifier.note(name, error)
        manifests = self._snapshots.manifests(self._name, on_damage=verifier.note)
        return verifier.run(manifests, everything=True)

    # -- attesting

    def attest(self, snapshot_id: str, validator: Validator) -> GraphSnapshot:
        """Let a validator say that a snapshot is good; a second time changes nothing. What is known of it then.

        Raises NotFound, UnknownValidator when there is a policy that does not know the key.
        """
        manifest = self._snapshots.manifest(snapshot_id)
        if self.quorum is not None:
            with self._telling(manifest.name or "", manifest.id):
                self.quorum.find(validator.public.public_key)
        digest = self.repository.snapshots.digest(manifest.id)
        self.repository.require_fit()
        self.repository.attestations.attest(manifest.id, digest, validator, self.repository.clock)
        return self._snapshots.told(manifest)

    # -- restoring

    def restore_snapshot(
        self,
        snapshot_id: str | None = None,
        policy: RegenerationPolicy | None = None,
        means: RestoreMeans | None = None,
        *,
        accept_pending: bool = False,
    ) -> RestoreReport:
        """Let the outputs of a snapshot, or of the one in force, be there again; what is good is left alone.

        `graph` of this manager stays as it is: `get_snapshot(…).graph` is the one that was stored. Nodes that cannot
        be had are told in the report. Raises NotFound, QuorumNotReached for a pending one unless `accept_pending`,
        GraphError, InvalidRequest for files that would lie in the repository, and what `regenerate` raises.
        """
        manifest = self._chosen(snapshot_id, accept_pending=accept_pending)
        means = means or RestoreMeans()
        with self._telling(manifest.name or "", manifest.id):
            graph = self._snapshots.graph(manifest)
            report = regenerate(graph, self._outputs(means, graph), self._options(manifest, policy, means))
        self._tell_restored(manifest, report)
        return report

    def plan_restore(
        self,
        snapshot_id: str | None = None,
        policy: RegenerationPolicy | None = None,
        means: RestoreMeans | None = None,
        *,
        accept_pending: bool = False,
    ) -> RestorePlan:
        """What `restore_snapshot` would do, which changes nothing. Raises the same."""
        manifest = self._chosen(snapshot_id, accept_pending=accept_pending)
        means = means or RestoreMeans()
        graph = self._snapshots.graph(manifest)
        return plan_regeneration(graph, self._outputs(means, graph), self._options(manifest, policy, means))

    def _chosen(self, snapshot_id: str | None, *, accept_pending: bool) -> Manifest:
        if snapshot_id is None:
            return self._in_force(self._name)
        manifest = self._snapshots.manifest(snapshot_id)
        if not accept_pending:
            with self._telling(manifest.name or "", manifest.id):
                self._snapshots.require_accepted(manifest)
        return manifest

    def _in_force(self, name: str | None) -> Manifest:
        found = self._snapshots.newest_accepted(name)
        if found is not None:
            return found
        newest = next(reversed(self._snapshots.manifests(name)), None)
        if newest is None:
            raise no_graph_snapshot(name or "", "none was made yet, or all were deleted")
        with self._telling(newest.name or "", newest.id):
            self._snapshots.require_accepted(newest)
        return newest  # it was accepted just now

    def _outputs(self, means: RestoreMeans, graph: MetadataGraph) -> Outputs:
        if isinstance(means.outputs, FileOutputs):
            require_apart(self.repository, means.outputs.directory, graph)
        return means.outputs if means.outputs is not None else StoredOutputs(self.values)

    def _options(
        self, manifest: Manifest, policy: RegenerationPolicy | None, means: RestoreMeans
    ) -> RegenerationOptions:
        others = other_graphs(manifest, self._snapshots)
        return RegenerationOptions(
            policy=policy or RegenerationPolicy(),
            others=others.graphs,
            standins=others.standins,
            recomputers=means.recomputers,
            validators=means.validators,
            executor=means.executor,
            clock=self.repository.clock,
            events=self.events,
        )

    def _tell_restored(self, manifest: Manifest, report: RestoreReport) -> None:
        now, name, tell = self.repository.clock.now(), manifest.name or "", too_late_to_stop(self.events)
        for node in report.problems:
            tell(ValidationFailed(time=now, snapshot=manifest.id, graph=name, node=node.id, reason=node.reason))
        counts = {
            outcome: report.counts[outcome] for outcome in ("reused", "restored", "recomputed", "failed", "blocked")
        }
        tell(GraphSnapshotRestored(time=now, snapshot=manifest.id, graph=name, ok=report.ok, **counts))

    # -- removing

    def delete_snapshot(self, snapshot_id: str, reason: str = "") -> bool:
        """Let a snapshot go with the next collection; False if there is none of this id. Raises HoldViolation."""
        try:
            manifest = self._snapshots.manifest(snapshot_id)
        except NotFound:
            return False
        return mark_deleted(self.repository, manifest.id, reason)

    def garbage_collect(
        self, *, max_snapshots: int | None = None, ttl_days: float | None = None, unreferenced: bool = False
    ) -> list[str]:
        """Remove what deleted snapshots of any graph leave; the ids of the values that went, in order.

        With `max_snapshots` or `ttl_days` older snapshots of each graph go too, but never the newest accepted one. With
        `unreferenced` values go that no snapshot names, also those that never were in a graph. `backstay gc` then
        frees the space. Raises CorruptedBackup when anything cannot be read: in doubt nothing goes; ValueBusy while
        a snapshot is being made.
        """
        return self.execute_collection(
            self.plan_collection(max_snapshots=max_snapshots, ttl_days=ttl_days, unreferenced=unreferenced)
        )

    def plan_collection(
        self, *, max_snapshots: int | None = None, ttl_days: float | None = None, unreferenced: bool = False
    ) -> GraphCollectionPlan:
        """What `garbage_collect` would remove, which changes nothing. Raises InvalidRequest, CorruptedBackup."""
        expiry = Expiry(max_snapshots=max_snapshots, ttl_days=ttl_days)
        return plan_collection(self.repository, self.values, self._snapshots, expiry, unreferenced=unreferenced)

    def execute_collection(self, plan: GraphCollectionPlan) -> list[str]:
        """Carry a plan out; the ids of the values that went, in order. Raises ValueBusy."""
        snapshots, gone = execute_collection(self.repository, self.values, plan)
        self.events(GarbageCollected(time=self.repository.clock.now(), snapshots=snapshots, values=len(gone)))
        return list(gone)

    # -- plain files

    def export_layout(self, snapshot_id: str, directory: Path) -> None:
        """Write a snapshot as `blobs/` and `metadata/snapshots.json`, beside others that are there.

        Raises NotFound, OutputMissing, and what writing raises.
        """
        told = self.get_snapshot(snapshot_id)
        graph = MetadataGraph.of(
            told.graph.head.model_copy(
                update={"consensus": told.state == "accepted", "validated_by": told.validated_by}
            ),
            told.graph,
        )
        shown = LayoutSnapshot(
            id=told.id, time=told.time, graph=graph, description=told.description, tags=told.tags, state=told.state
        )
        write_layout(directory, [shown], self.values)

    @classmethod
    def import_layout(
        cls,
        repository: Repository,
        directory: Path,
        *,
        quorum: QuorumPolicy | None = None,
        events: EventSink = ignore,
    ) -> GraphBackupManager:
        """Make snapshots of those in a directory, but for those that were imported before; a manager of all graphs.

        Who is said to have validated them counts for nothing: with a policy they are pending. Raises NotFound,
        GraphError, and InvalidRequest for texts that cannot be kept, before anything is stored.
        """
        manager = cls(repository, quorum=quorum, events=events)
        there = manager._snapshots.manifests()
        known = {manifest.consistency.get(IMPORTED) for manifest in there} | {manifest.id for manifest in there}
        with read_layout(directory) as layout:
            wanted = [
                Wanted(
                    graph=found.graph,
                    description=found.description,
                    tags=found.tags,
                    time=found.time,
                    imported=found.id,
                )
                for found in layout.snapshots
                if found.id not in known
            ]
            for one in wanted:  # before anything is stored
                one.check()
            layout.store_values(manager.values)
            for one in wanted:
                manager._create(one)
        return manager

    @contextmanager
    def _telling(self, graph: str, snapshot: str = "") -> Iterator[None]:
        """Tell who subscribed what was found wrong, before the error goes on."""
        try:
            yield
        except (GraphError, QuorumNotReached, UnknownValidator) as error:
            now = self.repository.clock.now()
            self.events(ValidationFailed(time=now, snapshot=snapshot, graph=graph, node="", reason=str(error)))
            raise


def _tags(tags: Sequence[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise InvalidRequest("tags are a list of texts", cause="one text was given", hint=f"write [{tags!r}]")
    return tuple(tags)
