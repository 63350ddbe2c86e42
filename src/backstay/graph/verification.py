"""Checks graph snapshots: the graph is whole, its values are there, and who attests it is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from backstay.core.quantities import plural
from backstay.errors import BackstayError, CorruptedBackup, NotFound
from backstay.graph.snapshot_writer import named_values as values_of_graph
from backstay.graph.snapshots import GraphSnapshots
from backstay.graph.values import checked
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.values.ids import value_id
from backstay.repository.values.references import named_values
from backstay.trust.quorum import QuorumPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFinding:
    """One thing that is wrong, or that somebody should know. `subject` is a snapshot, a value or an object."""

    severity: Literal["error", "warning"]
    subject: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphVerification:
    """What was looked at, and what was found."""

    snapshots: int
    values: int
    values_read: int
    findings: tuple[GraphFinding, ...]

    @property
    def ok(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)


class GraphVerifier:
    """One run. With `read_data` every value is read and compared with its id."""

    def __init__(
        self,
        repository: Repository,
        values: ContentAddressableStorage,
        snapshots: GraphSnapshots,
        quorum: QuorumPolicy | None,
        *,
        read_data: bool = False,
    ) -> None:
        self._repository, self._values, self._snapshots = repository, values, snapshots
        self._quorum, self._read_data = quorum, read_data
        self._found: list[GraphFinding] = []
        self._named: set[bytes] = set()
        self._read = 0

    def run(self, manifests: list[Manifest], *, everything: bool) -> GraphVerification:
        """Check these snapshots; with `everything` also all that lies among attestations and marks."""
        for manifest in manifests:
            self._snapshot(manifest)
        self._values_are_there()
        if self._read_data:
            self._values_are_whole()
        if everything:
            self._attestations()
        return GraphVerification(
            snapshots=len(manifests),
            values=len(self._named),
            values_read=self._read,
            findings=tuple(self._found),
        )

    def note(self, subject: str, error: BackstayError, severity: Literal["error", "warning"] = "error") -> None:
        """Add what was found elsewhere."""
        self._found.append(GraphFinding(severity=severity, subject=subject, message=str(error), hint=error.hint))

    def _snapshot(self, manifest: Manifest) -> None:
        subject = f"snapshot {manifest.id}"
        try:
            graph = self._snapshots.graph(manifest)
            graph.check()
            listed = set(named_values(self._repository, manifest))
        except BackstayError as error:
            self.note(subject, error)
            return
        required, _ = values_of_graph(graph)
        unlisted = {bytes.fromhex(digest) for digest in required} - listed
        if unlisted:
            lost = f"its nodes made {plural(len(unlisted), 'value')} that it does not keep"
            self.note(subject, CorruptedBackup(lost, cause=value_id(min(unlisted))))
        self._named |= listed | unlisted
        if self._quorum is not None:
            self._strangers(manifest, self._quorum)

    def _strangers(self, manifest: Manifest, quorum: QuorumPolicy) -> None:
        known = {validator.public_key for validator in quorum.validators}
        for statement in self._repository.attestations.statements(manifest.id):
            if statement.public_key not in known:
                self._found.append(
                    GraphFinding(
                        severity="warning",
                        subject=f"snapshot {manifest.id}",
                        message=f"a key that the policy does not know attests it: {statement.public_key}",
                        hint="it counts for nothing",
                    )
                )

    def _values_are_there(self) -> None:
        for key in self._values.missing(map(value_id, self._named)):
            self._found.append(
                GraphFinding(
                    severity="error",
                    subject=key,
                    message="this value is missing",
                    hint="`backstay graph restore` makes it again, if that can be done",
                )
            )

    def _values_are_whole(self) -> None:
        lost = {finding.subject for finding in self._found}
        for key in map(value_id, sorted(self._named)):
            if key in lost:
                continue
            try:
                for _ in checked(self._values.open(key), key, f"value {key}"):
                    pass
            except NotFound:
                continue  # deleted meanwhile
            except BackstayError as error:
                self.note(key, error)
            self._read += 1

    def _attestations(self) -> None:
        dropped = self._repository.snapshots.dropped()
        for name, error in self._repository.attestations.problems():
            if name.split("/")[1] not in dropped:
                self.note(name, error)


def damaged_marks(repository: Repository) -> Iterator[tuple[str, BackstayError]]:
    """Marks of deletion that cannot be read: they delete nothing."""
    found: list[tuple[str, BackstayError]] = []
    repository.snapshots.graph_deletions.marked(on_damage=lambda name, error: found.append((name, error)))
    return iter(found)
