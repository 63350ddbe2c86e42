"""Back up a PostgreSQL cluster through the replication protocol: its files, and the WAL that makes them consistent.

Each snapshot is whole. From PostgreSQL 17 on only the blocks travel that changed since the last one, if the server
keeps summaries of its WAL; otherwise all files travel, and what is stored already is not stored again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from backstay.codec.chunker import LISTINGS, FixedSize
from backstay.core.clock import ns_from_datetime
from backstay.core.events import EventSink, Progress, Started, Warned, finished, ignore
from backstay.core.pipeline import Workers
from backstay.core.version import VERSION
from backstay.errors import (
    BackstayError,
    BackupFailed,
    ChecksumFailure,
    CorruptedBackup,
    NotFound,
    ObjectFrozen,
    ObjectNotFound,
    TierNotAttached,
)
from backstay.operations.backup.request import check_name
from backstay.operations.backup.scarce_room import warn_of_scarce_room
from backstay.operations.clusters.backup_wal import WalFetch
from backstay.operations.clusters.files import DATA, ClusterFiles
from backstay.operations.clusters.standby_content import checkpoint_time, stored_content_time
from backstay.operations.clusters.stored_files import CHUNK
from backstay.operations.locks.extend import extend_after_backup
from backstay.operations.snapshots.walk import Item, walk
from backstay.operations.wal.bases import (
    CONTENT_TIME,
    DAMAGED,
    SERVER_MANIFEST,
    base_backups,
    damage_of,
    server_manifest,
    source_of,
)
from backstay.operations.wal.needs import needed_wal
from backstay.repository.nodes import Node
from backstay.repository.repository import Repository
from backstay.repository.sessions.session import Session
from backstay.repository.snapshots.making import all_new, chunker_info
from backstay.repository.snapshots.store import Manifest, SnapshotKind
from backstay.repository.trees.node_tree import NodeTree
from backstay.repository.wal.store import require_cluster
from backstay.sources.postgres.base_backup import (
    INCREMENTAL_FROM,
    Received,
    SummariesMissing,
    receive_base,
    require_version,
)
from backstay.sources.postgres.connection import Connection
from backstay.sources.postgres.lsn import format_lsn
from backstay.sources.postgres.receiver import read_history
from backstay.sources.postgres.wal_records import TablespaceMade

CHECKPOINT_S: Final = 10.0
PROGRESS_EVERY_S: Final = 0.2
_TRIES: Final = 3  # while tablespaces are made
_STANDBY: Final = "in_hot_standby"  # a setting that servers report
_NO_SETTINGS: Final = (
    "the server's postgresql.conf does not lie in its data directory and is not part of the backup: "
    "back up its directory as files, because a restored server needs it"
)
_CHUNKER: Final = chunker_info(FixedSize(CHUNK))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterBackupOptions:
    """`full` has all files sent, whatever was stored before."""

    name: str
    host: str
    full: bool = False
    tags: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterBackupResult:
    """A base backup; positions as PostgreSQL writes them, sizes in bytes. `reason` says why all files were sent.

    Of a standby `content_time` is that of the last commit which it had replayed.
    """

    snapshot: str
    kind: SnapshotKind
    parent: str | None
    system_id: int
    timeline: int
    start_lsn: str
    stop_lsn: str
    stop_time: str
    content_time: str | None
    files: int
    bytes: int
    bytes_received: int
    bytes_added: int
    duration_s: float
    reason: str


def back_up_cluster(
    repository: Repository, url: str, options: ClusterBackupOptions, *, events: EventSink = ignore
) -> ClusterBackupResult:
    """Make one base backup.

    Order: slot, files, WAL up to their end, snapshot; each is durable before the next, so that a snapshot that exists
    can be recovered. A crash leaves packs that no snapshot needs, and WAL that the next backup finds.
    One during which a tablespace was made is made once more. Raises SourceUnreachable, ReplicationDenied,
    WalLevelTooLow, IdentityMismatch, VersionUnsupported, SnapshotFenced, ChecksumFailure, TablespaceMadeMeanwhile.
    """
    check_name(options.name)
    for _ in range(_TRIES - 1):
        try:
            return _back_up(repository, url, options, events)
        except TablespaceMadeMeanwhile as error:
            if error.is_standby:
                raise
            events(Warned(message=f"{error}; the base backup is made once more"))
    return _back_up(repository, url, options, events)


def _back_up(repository: Repository, url: str, options: ClusterBackupOptions, events: EventSink) -> ClusterBackupResult:
    with (
        Connection(url, replication=True) as connection,
        repository.begin_session() as session,
    ):
        session.start_heartbeat()
        backup = _ClusterBackup(repository, url, options, connection, session, events)
        manifest, result = backup.run()
        with session.deciding():
            repository.confirm_lease()
            repository.snapshots.commit(manifest)
    finished(events, "backup")
    extend_after_backup(repository, manifest.id, logs=lambda made: needed_wal(repository, [made]), events=events)
    warn_of_scarce_room(repository.backend, events)
    if DAMAGED in manifest.consistency:
        raise ChecksumFailure(
            f"{connection.place} has damaged pages: snapshot {manifest.id} has them as they are, and is marked",
            cause=manifest.consistency[DAMAGED],
        )
    return result


class TablespaceMadeMeanwhile(BackupFailed):
    """A tablespace was made during a base backup: a server that recovers from it makes it where it lay.

    A standby begins its base backups at the last checkpoint of its primary, so that the next may have the same WAL.
    """

    default_hint = "make the base backup again; of a standby, after a CHECKPOINT on its primary"

    def __init__(self, made: TablespaceMade, *, is_standby: bool) -> None:
        super().__init__(
            "a tablespace was made during the base backup, which could not be recovered beside its server",
            cause=f"at {format_lsn(made.lsn)} tablespace {made.oid} was made in {made.place}",
        )
        self.is_standby = is_standby


@dataclass(slots=True)
class _Cluster:
    """Who answers."""

    system_id: int
    timeline: int
    version: str
    segment_size: int


class _ClusterBackup:
    """One run; its methods are the stages in order."""

    def __init__(
        self,
        repository: Repository,
        url: str,
        options: ClusterBackupOptions,
        connection: Connection,
        session: Session,
        events: EventSink,
    ) -> None:
        self.repository, self.url, self.options = repository, url, options
        self.connection, self.session, self.events = connection, session, events
        self.clock = repository.clock
        self.new_packs: set[bytes] = set()
        self.reason = ""
        self.started = self.checkpointed = self.progressed = self.clock.monotonic()
        self.total = 0

    def run(self) -> tuple[Manifest, ClusterBackupResult]:
        require_version(self.connection)
        cluster = self._identify()
        self.repository.hide_missing_packs()
        history = self._known()
        usable = self._usable(history)
        base = self._base(cluster, history, usable)
        with Workers(self.repository.environment.threads, "seal") as sealing:
            self.writer = self.repository.writer(sealing)
            try:
                with WalFetch(self.repository, self.url, cluster.system_id, cluster.segment_size) as wal:
                    files, received, base = self._receive(base, usable[-1] if usable else None)
                    made = wal.fetch(received.start, received.stop)
                is_standby = self.connection.parameter(_STANDBY) == "on"
                if made:
                    raise TablespaceMadeMeanwhile(made[0], is_standby=is_standby)
                stop_time = self._server_time()
                content_time = self._content_time(cluster, received) if is_standby else None
                files.require_sizes(received.manifest)
                files.add(SERVER_MANIFEST, received.manifest, mtime=int(stop_time.timestamp()))
                if DATA + b"/postgresql.conf" not in files.nodes:
                    self.events(Warned(message=_NO_SETTINGS))
                files.own_directories()
                tree = NodeTree(files.nodes, mtime_ns=ns_from_datetime(stop_time))
                root, stat_stream, totals = tree.write(self.repository, self.writer)
                self.writer.flush()
                self._index_settled()
                packs = self._packs()
                added = self.writer.bytes_added
            finally:
                self.writer.close()
        kind: SnapshotKind = "incremental" if base is not None else "full"
        previous = history[-1] if history else None
        now = self.clock.now_ns()
        duration = self.clock.monotonic() - self.started
        manifest = Manifest(
            id=self.session.id,
            kind=kind,
            source=source_of(cluster.system_id),
            host=self.options.host,
            paths=(b"/" + DATA,),
            name=self.options.name,
            tags=(*self.options.tags, DAMAGED) if received.damage else self.options.tags,
            description=self.options.description,
            time_ns=now,
            recorded_ns=now,
            parent=base.id if base is not None else None,
            previous=previous.id if previous is not None else None,
            previous_digest=self.repository.snapshots.digest(previous.id) if previous is not None else None,
            root=root,
            stat_stream=stat_stream,
            chunkers={
                "files": _CHUNKER,
                "listings": chunker_info(LISTINGS),
            },
            stats=all_new(
                files=totals.files,
                dirs=totals.dirs,
                bytes=totals.bytes,
                bytes_read=files.bytes_read,
                bytes_added=added,
                duration_s=duration,
            ),
            packs=tuple(sorted(packs)),
            slots=self.repository.slots.digests(),
            program=f"backstay {VERSION}",
            consistency=_consistency(cluster, received, stop_time, content_time),
        )
        result = ClusterBackupResult(
            snapshot=manifest.id,
            kind=kind,
            parent=manifest.parent,
            system_id=cluster.system_id,
            timeline=received.stop.timeline,
            start_lsn=format_lsn(received.start.lsn),
            stop_lsn=format_lsn(received.stop.lsn),
            stop_time=stop_time.isoformat(),
            content_time=content_time.isoformat() if content_time is not None else None,
            files=totals.files,
            bytes=totals.bytes,
            bytes_received=files.bytes_read,
            bytes_added=added,
            duration_s=duration,
            reason=self.reason,
        )
        return manifest, result

    # -- before

    def _identify(self) -> _Cluster:
        system, timeline, _, _ = self.connection.query("IDENTIFY_SYSTEM")[0]
        size = self.connection.value("SHOW wal_segment_size")
        cluster = _Cluster(
            int(system or 0), int(timeline or 0), self.connection.parameter("server_version"), _bytes(size)
        )
        for base in base_backups(self.repository, self.options.name, on_damage=_left_out):
            require_cluster(self.options.name, base.system, cluster.system_id)
        self.repository.wal.bind(self.options.name, cluster.system_id, self.clock)
        self._store_histories(cluster)
        return cluster

    def _store_histories(self, cluster: _Cluster) -> None:
        """From where the server's timelines came: without that no recovery finds its way along them.

        A history that is stored already and is another one belongs to another server. Raises WalConflict.
        """
        for timeline in range(2, cluster.timeline + 1):
            found = read_history(self.connection, timeline)
            if found is not None:
                self.repository.wal.store(cluster.system_id, *found)

    def _known(self) -> list[Manifest]:
        """The base backups of this name, oldest first."""
        bases = base_backups(self.repository, self.options.name, on_damage=_left_out)
        return [base.manifest for base in bases if base.manifest is not None]

    def _base(self, cluster: _Cluster, history: list[Manifest], usable: list[Manifest]) -> Manifest | None:
        """The snapshot since which only changes are to be sent."""
        on_timeline = [found for found in usable if found.consistency.get("timeline") == str(cluster.timeline)]
        if self.options.full:
            self.reason = "all files were asked for"
        elif self.connection.version < INCREMENTAL_FROM:
            self.reason = f"PostgreSQL {self.connection.version} cannot tell what changed"
        elif not on_timeline:
            self.reason = (
                "no earlier base backup of this timeline can be built upon" if history else "it is the first one"
            )
        elif self.connection.value("SHOW summarize_wal") != "on":
            self.reason = "summarize_wal is off"
        else:
            return on_timeline[-1]
        return None

    def _usable(self, history: list[Manifest]) -> list[Manifest]:
        """Those that may be built upon, oldest first."""
        log = self.repository.collections
        return [
            found
            for found in self.repository.findable(history)
            if log.may_build_on(found.id) and found.chunkers["files"] == _CHUNKER and not damage_of(found)
        ]

    # -- the files

    def _receive(self, base: Manifest | None, like: Manifest | None) -> tuple[ClusterFiles, Received, Manifest | None]:
        """Everything that the server sends, most of it `like` that; without a base when it cannot do with one."""
        if base is not None:
            try:
                earlier = server_manifest(base, self.repository.reader)
                return *self._receive_with(self._nodes_of(base), earlier), base
            except SummariesMissing as error:
                self.reason = error.cause
            except (CorruptedBackup, NotFound, TierNotAttached, ObjectFrozen) as error:
                self.reason = f"the earlier base backup cannot be used: {error}"
                self.connection.renew()  # the server may be in the midst of sending
                self.writer.reused.clear()  # nothing that was taken so far counts
            self.events(Warned(message=f"all files are sent: {self.reason}"))
        return *self._receive_with(self._likely(like), None), None

    def _likely(self, like: Manifest | None) -> dict[bytes, Node]:
        """The files of a snapshot, as far as they can be read: nothing but room depends on them."""
        try:
            return self._nodes_of(like) if like is not None else {}
        except (CorruptedBackup, ObjectNotFound, TierNotAttached, ObjectFrozen):
            return {}

    def _receive_with(self, nodes: dict[bytes, Node], earlier: bytes | None) -> tuple[ClusterFiles, Received]:
        files = ClusterFiles(self, nodes, self.repository.reader, self._told, incremental=earlier is not None)
        self.events(Started(operation="backup", total_files=len(nodes)))
        received = receive_base(self.connection, files, label=f"backstay {self.options.name}", earlier=earlier)
        return files, received

    def _nodes_of(self, base: Manifest) -> dict[bytes, Node]:
        visits = walk(base.root, self.repository.reader)
        return {visit.path.lstrip(b"/"): visit.node for visit in visits if isinstance(visit, Item)}

    def _told(self, files: int, done: int) -> None:
        """The server tells how far it is: time for what is done now and then."""
        now = self.clock.monotonic()
        if now - self.progressed >= PROGRESS_EVERY_S:
            self.progressed = now
            self.events(Progress(files=files, bytes=done, current=""))
        if now - self.checkpointed >= CHECKPOINT_S:
            self.checkpointed = now
            self.writer.turn()
        self._index_settled()

    def _index_settled(self) -> None:
        """Make durable chunks findable: a crash leaves a repository that the next run builds upon."""
        for packs, _ in self.writer.settled():
            if packs:
                self.new_packs.update(pack.digest for pack in packs)
                self.repository.index.write(packs)

    def _packs(self) -> set[bytes]:
        index = self.repository.index
        return self.new_packs | {index.pack(number).digest for number in self.writer.reused}

    # -- the end

    def _server_time(self) -> datetime:
        """The server's own clock: recovery targets are compared with it."""
        with Connection(self.url) as plain:
            microseconds = plain.value("select (extract(epoch from clock_timestamp()) * 1000000)::bigint")
        return datetime.fromtimestamp(int(microseconds) / 1e6, UTC)

    def _content_time(self, cluster: _Cluster, received: Received) -> datetime | None:
        """The moment that a backup of a standby shows; None if nothing tells."""
        size = cluster.segment_size
        found = stored_content_time(self.repository.wal, cluster.system_id, size, received.start, received.stop)
        if found is None:
            with Connection(self.url) as plain:
                found = checkpoint_time(plain, received.start)
        return found


def _consistency(
    cluster: _Cluster, received: Received, stop_time: datetime, content_time: datetime | None
) -> dict[str, str]:
    """What a recovery has to know."""
    facts = {
        "system_id": str(cluster.system_id),
        "timeline": str(received.stop.timeline),
        "start_lsn": format_lsn(received.start.lsn),
        "stop_lsn": format_lsn(received.stop.lsn),
        "stop_time": stop_time.isoformat(),
        "version": cluster.version,
        "segment_size": str(cluster.segment_size),
    }
    if content_time is not None:
        facts[CONTENT_TIME] = content_time.isoformat()
    if received.damage:
        facts[DAMAGED] = received.damage
    for space in received.tablespaces:
        facts[f"tablespace.{space.oid}"] = space.location.decode("utf-8", "backslashreplace")
    return facts


def _bytes(text: str) -> int:
    """`16MB` and the like, as SHOW prints them."""
    units = {"kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
    digits = text.rstrip("kMGB")
    return int(digits) * units.get(text[len(digits) :], 1)


def _left_out(_name: str, _error: BackstayError) -> None:
    """One that cannot be read is nothing to build upon; `verify` tells of it."""
