"""Makes one snapshot of a graph: an ordinary snapshot, whose source is `graph:` and the graph's name.

Order, and what a crash leaves after each step:

1. the session is announced: nothing, once its lease has ended;
2. an intent in the log of values, durable before any value is looked for: who removes values waits for this session,
   or fences it;
3. all values that the graph names are there, and the packs that they lie in, or the snapshot is refused;
4. packs, then an index segment: chunks that the next snapshot finds;
5. the snapshot: it exists, and names its values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from backstay.codec.chunker import LISTINGS
from backstay.core.clock import ns_from_datetime
from backstay.core.pipeline import Workers
from backstay.core.quantities import plural
from backstay.core.version import VERSION
from backstay.errors import InvalidNode, InvalidRequest, OutputMissing
from backstay.graph.documents import write_head, write_nodes
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node as GraphNode
from backstay.graph.snapshot_facts import IMPORTED, NODE_COUNT, REQUIRES, VALUE_COUNT, Required
from backstay.graph.snapshot_files import HEAD, NODES, VALUES, FileWriter, value_lines
from backstay.graph.switching import is_own
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.nodes import Content, Node
from backstay.repository.repository import Repository
from backstay.repository.sessions.session import Session
from backstay.repository.snapshots.making import all_new, chunker_info
from backstay.repository.snapshots.store import Manifest
from backstay.repository.trees.listings import Totals
from backstay.repository.trees.node_tree import NodeTree
from backstay.repository.values.references import GRAPH_SOURCE
from backstay.trust.quorum import QuorumPolicy

_MAX_TEXT: Final = 4096  # characters of a description
_MAX_TAG: Final = 200
_MAX_TAGS: Final = 100
_TOLD: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What was made; kept to spare the work when the next snapshot is of the same nodes."""

    manifest: Manifest
    graph_nodes: dict[str, GraphNode]
    lines: Node
    required: frozenset[str]
    optional: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked of a snapshot. `time` is what it claims, now if None; `imported` its id where it came from."""

    graph: MetadataGraph
    description: str = ""
    tags: tuple[str, ...] = ()
    time: datetime | None = None
    imported: str | None = None

    def check(self) -> None:
        """Raises InvalidRequest for texts that cannot be kept."""
        if len(self.description) > _MAX_TEXT or len(self.tags) > _MAX_TAGS:
            raise InvalidRequest(
                "a description or the tags are too long",
                cause=f"a description has at most {_MAX_TEXT} characters, and there are at most {_MAX_TAGS} tags",
            )
        try:
            self.description.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                "a description is not valid UTF-8", cause=str(error), hint="write it in UTF-8"
            ) from error
        for tag in self.tags:
            if not (0 < len(tag) <= _MAX_TAG and tag.isprintable()):
                raise InvalidRequest(
                    f"{tag[:_MAX_TAG]!r} cannot be a tag", cause=f"it has 1 to {_MAX_TAG} printable characters"
                )


def store_graph(
    repository: Repository,
    values: ContentAddressableStorage,
    wanted: Wanted,
    required: Required,
    last: Stored | None,
    *,
    quorum: QuorumPolicy | None,
) -> Stored:
    """Make a snapshot; `last` is what was made before, and spares work where the nodes are the same.

    Raises InvalidRequest, GraphError, OutputMissing; SnapshotFenced, StorageUnavailable.
    """
    wanted.check()
    same = last if last is not None and last.graph_nodes == wanted.graph.nodes else None
    if same is None:
        wanted.graph.check()
        _check_paths(wanted.graph)
    with repository.begin_session() as session, Workers(repository.environment.threads, "seal") as workers:
        session.start_heartbeat()
        repository.hide_missing_packs()
        writer = repository.writer(workers)
        try:
            stored = _Snapshot(repository, values, wanted, required, session, writer).run(same, quorum)
        finally:
            writer.close()
        with session.deciding():
            repository.confirm_lease()
            repository.snapshots.commit(stored.manifest)
    return stored


def _check_paths(graph: MetadataGraph) -> None:
    """Raises InvalidNode for an output that no restore into files could put where it belongs.

    Not asked of the node itself, so that snapshots that have one can be read.
    """
    for node in graph if graph.has_files else ():
        path = node.metadata.path
        if path is not None and is_own(path):
            raise InvalidNode(
                f"node {node.id} cannot have its output at {path}",
                cause="Backstay keeps its own files there while it restores others",
                hint="give it another path",
            )


class _Snapshot:
    def __init__(
        self,
        repository: Repository,
        values: ContentAddressableStorage,
        wanted: Wanted,
        required: Required,
        session: Session,
        writer: BlobWriter,
    ) -> None:
        self.repository, self.values, self.wanted, self.required = repository, values, wanted, required
        self.session, self.writer = session, writer
        self.files = FileWriter(repository, writer)
        self.started = repository.clock.monotonic()

    def run(self, same: Stored | None, quorum: QuorumPolicy | None) -> Stored:
        graph = self.wanted.graph
        required, optional = (same.required, same.optional) if same is not None else named_values(graph)
        self.values.intend(self.session.id)
        there = self._present(required | self.required.values, optional)
        lines = self.files.again(same.lines, self.repository.reader) if same is not None else None
        lines = lines or self.files.write(NODES, write_nodes(graph))
        listed = self.files.write(VALUES, value_lines(there))
        head = self.files.write(HEAD, [write_head(graph)])
        nodes = {HEAD: head, NODES: lines, VALUES: listed}
        root, stat_stream, totals = NodeTree(nodes, mtime_ns=head.mtime_ns).write(self.repository, self.writer)
        self.writer.flush()
        packs = self._indexed()
        manifest = self._manifest(root, stat_stream, totals, packs, len(there), quorum)
        return Stored(
            manifest=manifest,
            graph_nodes=dict(graph.nodes),
            lines=lines,
            required=required,
            optional=optional,
        )

    def _present(self, required: frozenset[str], optional: frozenset[str]) -> set[str]:
        """The values to be named: all that are required, and what is there of the others. Raises OutputMissing.

        Of those that are required the packs must be there too; none is read.
        """
        if lost := _digests(self.values.unavailable(required)):
            raise _missing(self.wanted, lost, unknown=_digests(self.values.missing(lost)))
        return set(required | optional) - _digests(self.values.missing(optional - required))

    def _indexed(self) -> set[bytes]:
        """Make the packs findable; all that the snapshot needs."""
        index, packs = self.repository.index, self.writer.take_packs()
        if packs:
            index.write(packs)
        return {pack.digest for pack in packs} | {index.pack(number).digest for number in self.writer.reused}

    def _manifest(
        self,
        root: Content,
        stat_stream: Content,
        totals: Totals,
        packs: set[bytes],
        values: int,
        quorum: QuorumPolicy | None,
    ) -> Manifest:
        repository, wanted = self.repository, self.wanted
        now = repository.clock.now_ns()
        source, host = f"{GRAPH_SOURCE}{wanted.graph.name}", repository.process.host.partition("/")[0]
        chain = [found for found in repository.snapshots.live() if (found.source, found.host) == (source, host)]
        previous = chain[-1] if chain else None
        chunker = chunker_info(LISTINGS)
        return Manifest(
            id=self.session.id,
            kind="full",
            source=source,
            host=host,
            paths=tuple(b"/" + name for name in (HEAD, NODES, VALUES)),
            name=wanted.graph.name,
            tags=wanted.tags,
            description=wanted.description,
            time_ns=ns_from_datetime(wanted.time) if wanted.time is not None else now,
            recorded_ns=now,
            parent=None,
            previous=previous.id if previous is not None else None,
            previous_digest=repository.snapshots.digest(previous.id) if previous is not None else None,
            root=root,
            stat_stream=stat_stream,
            chunkers={"files": chunker, "listings": chunker},
            stats=all_new(
                files=totals.files,
                dirs=totals.dirs,
                bytes=totals.bytes,
                bytes_read=self.files.bytes_read,
                bytes_added=self.writer.bytes_added,
                duration_s=repository.clock.monotonic() - self.started,
            ),
            packs=tuple(sorted(packs)),
            slots=repository.slots.digests(),
            program=f"backstay {VERSION}",
            policy=quorum.digest if quorum is not None else None,
            consistency={
                NODE_COUNT: str(len(wanted.graph)),
                VALUE_COUNT: str(values),
                **({IMPORTED: wanted.imported} if wanted.imported is not None else {}),
                **{f"{REQUIRES}{name}": ulid for name, ulid in self.required.snapshots},
            },
        )


def named_values(graph: MetadataGraph) -> tuple[frozenset[str], frozenset[str]]:
    """The digests of the values that must be there, and of those that are kept if they are.

    Completed nodes must have what they made. What others are to make may not be there yet, and inputs may come from
    elsewhere.
    """
    required: set[str] = set()
    optional: set[str] = set()
    for node in graph:
        (required if node.status == "completed" else optional).update(node.values)
        optional.update(node.metadata.input_hashes)
    return _digests(required), _digests(optional - required)


def _digests(ids: Iterable[str]) -> frozenset[str]:
    return frozenset(name.removeprefix("sha256:") for name in ids)


def _missing(wanted: Wanted, lost: frozenset[str], *, unknown: frozenset[str]) -> OutputMissing:
    told = [
        f"{node.id} ({name})"
        for node in wanted.graph
        if node.status == "completed"
        for name in node.values
        if name.removeprefix("sha256:") in lost
    ]
    rest = [f"… {len(told) - _TOLD} more"] if len(told) > _TOLD else []
    values, store = (
        plural(len(lost), "value"),
        "store the outputs first, or give these nodes another status than completed",
    )
    return OutputMissing(
        f"graph {wanted.graph.name} names {values} that the repository "
        + ("does not have" if unknown else "has lost the packs of"),
        cause=", ".join([*told[:_TOLD], *rest]) or f"other graphs made {len(lost)} of them",
        hint=store if unknown else f"`backstay repair packs --from-copy` brings packs back from a copy; else {store}",
    )
