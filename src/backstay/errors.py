"""Every exception that Backstay raises, one tree.

BackstayError
├── InvalidRequest            exit 2   the request itself makes no sense
│   ├── BadWalName            exit 2   PostgreSQL gives no such name to a file of its log
│   ├── InvalidQuorum         exit 2   a quorum policy cannot work
│   ├── KeyProviderUnsupported exit 2  a policy file wants keys kept where this version cannot
│   ├── NaiveTimestamp        exit 2   a recovery target is a time without a zone
│   ├── PolicyInvalid         exit 2   a policy file has mistakes; it tells all of them
│   ├── TargetAmbiguousTimeline exit 2 a recovery target lies on two timelines, and none was named
│   └── UnknownValidator      exit 2   a key attests that the quorum policy does not know
├── NotFound                  exit 1   no such snapshot, path, key slot
│   ├── ObjectNotFound                 the store proved that an object does not exist
│   └── NoRepository          exit 10
├── ObjectExists              exit 1   a write-once name is taken
├── RepositoryExists          exit 1   there is a repository already
├── BackupFailed              exit 1   a backup stopped without a snapshot
│   └── HookFailed                     a program that a policy runs before or after its backups failed
├── RestoreFailed             exit 1   a restore could not write what it promised
├── RestoreConflict           exit 17  the target holds something else
├── UnsupportedFormat         exit 1   a newer or foreign repository
├── WrongKey                  exit 12  no key slot opens with what was given
├── CorruptedBackup           exit 13  stored bytes are not what was written
│   └── BadAttestation                 what should be a validator's attestation is none
├── SnapshotFenced            exit 11  a collector cancelled this writer
├── CollectionBusy            exit 11  another collector holds the turn
├── InsufficientSpace         exit 14
│   └── QuotaExceeded         exit 14
├── StorageUnavailable        exit 15  the store does not answer as it should (transient by nature)
│   ├── StorageMissing        exit 15  the directory or bucket itself is not there
│   ├── StorageRefused        exit 15  the store knows us not, or forbids it
│   ├── StorageUnfit          exit 15  the store lacks what a repository relies on
│   ├── TierNotAttached       exit 15  the store of the cold tier is away: a disk that has to be attached
│   └── ObjectFrozen          exit 18  an archive has the object, and must be asked to thaw it first
│       └── ThawPending       exit 18  the archive was asked, and is at it
├── HoldViolation             exit 16  a hold or a policy forbids it
│   └── ValueInUse            exit 16  a snapshot refers to the value
├── QuorumNotReached          exit 16  too few validators attested a snapshot yet
├── ValueBusy                 exit 11  a writer at work may be about to refer to the value (transient by nature)
├── SourceUnreachable         exit 15  a database does not answer (transient by nature)
├── SourceRefused             exit 1   a database answered, and said no
│   ├── ReplicationDenied              the role or pg_hba.conf does not allow replication
│   ├── SlotInUse                      another receiver of this name runs
│   └── WalLevelTooLow                 the server logs too little, or has no place for a receiver
├── CorruptedSource           exit 1   a database that should be backed up is damaged itself, or no database
│   └── ChecksumFailure                pages of a cluster do not have the checksum that they say; what came is marked
├── IdentityMismatch          exit 1   another database cluster than before answers at this address
├── VersionUnsupported        exit 1   a server or client program of a version that this cannot be done with
│   └── ClientTooOld                   the client programs that are here are older than the server, or none are
├── DumpFailed                exit 1   pg_dump, pg_restore or their like ended with an error
├── SlotLost                  exit 1   the server gave up WAL that was not received yet
├── WalGap                    exit 1   a part of a database's log between two that are stored is missing
│   └── SnapshotIncomplete             a base backup lacks WAL without which it is not consistent
├── WalConflict               exit 1   a file of a database's log of this name and other bytes is stored already
├── WalWrongSize              exit 1   a WAL segment is shorter or longer than those of its cluster
├── ServiceRunning            exit 11  another process answers at the same socket
├── TargetNotCovered          exit 1   stored base backups and WAL do not reach the recovery target
│   └── TargetBeforeSnapshot           it lies before the first of them
├── RecoveryFailed            exit 1   a server that was started from a backup did not recover
│   └── RecoveryTimeout                it had not by the time that it was given
├── GraphError                exit 1   a graph of computed values is not what it must be
│   ├── InvalidNode                    a node or a graph has a field that cannot be
│   ├── InvalidDocument                a file that should describe a graph does not
│   ├── DuplicateNode                  two nodes have one id
│   ├── UnknownNode                    the graph has no node of this id
│   ├── MissingDependency              nodes depend on nodes that are not there
│   ├── CycleFound                     nodes depend on themselves
│   ├── OutputConflict                 the outputs of two nodes would be one file
│   ├── OutputMissing                  the value that a node made is not stored
│   ├── OutputMismatch                 a value is not the one that a node made
│   ├── InputLost                      what a node is made from cannot be read
│   ├── RecomputeFailed                a node could not be made again
│   │   ├── RecomputeTimeout           making it took longer than it may
│   │   └── WorkerLost                 the process that should make it ended
│   └── OutputsBusy           exit 11  another restore writes into the same directory
├── Interrupted               exit 130 the user pressed Ctrl-C
└── InternalError             exit 1   a mistake in the program itself
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

_TOLD_NODES: Final = 100  # that one error lists


class BackstayError(Exception):
    """A failure told in three lines: what failed, why, and what to do next.

    `code` is stable and meant for programs; `transient` says whether the same call may succeed later.
    """

    code: ClassVar[str] = "BackstayError"
    exit_status: ClassVar[int] = 1
    transient: ClassVar[bool] = False
    default_hint: ClassVar[str] = "run the command again with -v for details"

    def __init__(self, title: str, *, cause: str = "", hint: str = "") -> None:
        super().__init__(title)
        self.title = title
        self.cause = cause
        self.hint = hint or self.default_hint

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.code = cls.__name__

    def __str__(self) -> str:
        return f"{self.title}: {self.cause}" if self.cause else self.title


class InvalidRequest(BackstayError):
    """The request contradicts itself or names something that cannot be."""

    exit_status = 2
    default_hint = "see `backstay COMMAND --help`"


class BadWalName(InvalidRequest):
    """PostgreSQL gives no such name to a file of its log."""

    default_hint = "pass %p of archive_command"


class NaiveTimestamp(InvalidRequest):
    """A recovery target is a time without a zone."""

    default_hint = "write it with a zone, as in '2026-11-20 12:34:56+00'"


class TargetAmbiguousTimeline(InvalidRequest):
    """The recovery target lies on several timelines, behind where they parted, and means another state on each."""

    default_hint = "name the timeline with --timeline N"


class InvalidQuorum(InvalidRequest):
    """A quorum policy cannot be read, or could never be reached, or counts somebody twice."""

    default_hint = "it has `required`, and `validators` with a `name` and a `public_key` each"


class KeyProviderUnsupported(InvalidRequest):
    """A policy file wants the keys of a repository kept by a service that this version cannot ask."""

    default_hint = "use `provider: password` or `provider: key_file`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One mistake in a policy file: where, which key, what is wrong, and what to do about it if that is known."""

    file: str
    line: int
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        told = (
            f"{self.file}:{self.line}: {self.key}: {self.message}"
            if self.key
            else f"{self.file}:{self.line}: {self.message}"
        )
        return f"{told} ({self.hint})" if self.hint else told


class PolicyInvalid(InvalidRequest):
    """A policy file cannot be read, or says what cannot be; `mistakes` are all that were found, by their lines."""

    default_hint = "`backstay policy check` looks again; docs/policies.md has every key"

    def __init__(self, file: str, mistakes: Sequence[Mistake]) -> None:
        count = f"{len(mistakes)} mistakes" if len(mistakes) > 1 else "a mistake"
        super().__init__(f"{file} has {count}", cause=str(mistakes[0]))
        self.mistakes = tuple(mistakes)


class UnknownValidator(InvalidRequest):
    """A key attests that the quorum policy does not know."""

    default_hint = "add it to the policy, if its holder is to be trusted"


class NotFound(BackstayError):
    """What was asked for does not exist."""

    default_hint = "`backstay list` shows the snapshots there are"


class ObjectNotFound(NotFound):
    """The store proved that it holds no object of this name; never raised on doubt."""

    default_hint = "run `backstay verify` to see what else is missing"

    def __init__(self, name: str) -> None:
        super().__init__(f"object {name} does not exist", cause="it was deleted, or never stored")
        self.name = name


class NoRepository(NotFound):
    """There is no repository at this address."""

    exit_status = 10
    default_hint = "check the address, or create a repository with `backstay init`"


class ObjectExists(BackstayError):
    """A write-once object of this name exists already."""

    default_hint = "nothing was overwritten; choose another name"

    def __init__(self, name: str) -> None:
        super().__init__(f"object {name} exists already", cause="objects are written once and never replaced")
        self.name = name


class RepositoryExists(BackstayError):
    """A repository lies there already; it was left alone."""

    default_hint = "use it, or name another place"


class BackupFailed(BackstayError):
    """A backup ended without a snapshot; what it stored is reused by the next run."""

    default_hint = "mend the cause and run the same backup again: it continues where this one stopped"


class HookFailed(BackupFailed):
    """A program that a policy runs beside its backups ended with an error, took too long, or cannot be started."""

    default_hint = "run it by itself; `on_error: warn` lets the policy go on without it"


class RestoreFailed(BackstayError):
    """A restore could not write everything it promised."""

    default_hint = "mend the cause and run the same restore again: files that are already right are left alone"


class RestoreConflict(BackstayError):
    """The target holds items that differ from the snapshot; nothing was written."""

    exit_status = 17
    default_hint = "choose --conflict skip, overwrite, newer or rename, or restore to another directory"

    def __init__(self, title: str, *, cause: str = "", hint: str = "", paths: tuple[str, ...] = ()) -> None:
        super().__init__(title, cause=cause, hint=hint)
        self.paths = paths


class UnsupportedFormat(BackstayError):
    """The repository needs a newer program, or was never one of ours."""

    default_hint = "use a version of backstay that knows this format"


class WrongKey(BackstayError):
    """No key slot of the repository opens with the secret that was given."""

    exit_status = 12
    default_hint = "check BACKSTAY_PASSWORD, the password file or the key file; a recovery key opens it too"


class CorruptedBackup(BackstayError):
    """Stored bytes are not those that were written."""

    exit_status = 13
    default_hint = "run `backstay verify --read-data` for the whole extent; restore the object from another copy"


class BadAttestation(CorruptedBackup):
    """What lies among the attestations is none: torn, forged, or about something else. It counts for nothing."""

    default_hint = "find out what put it there; the validator can attest anew"


class SnapshotFenced(BackstayError):
    """A collector took this writer for dead and cancelled it; its data is not referenced."""

    exit_status = 11
    default_hint = "run the backup again: what was stored and not yet collected is reused"


class CollectionBusy(BackstayError):
    """Another collector announced its list first."""

    exit_status = 11
    default_hint = "run `backstay gc` again when the other one has finished"


class RepositoryBusy(BackstayError):
    """Another program writes, and the store cannot decide between several writers."""

    exit_status = 11
    default_hint = "try again when the other one has finished; a program that is gone is done without after an hour"


class InsufficientSpace(BackstayError):
    """The store or a local disk is full."""

    exit_status = 14
    default_hint = "free space on that file system, or run `backstay prune` and `backstay gc`"


class QuotaExceeded(InsufficientSpace):
    """The repository's own size limit is reached."""

    default_hint = "raise max_size, or prune snapshots and run `backstay gc`"


class StorageUnavailable(BackstayError):
    """The store did not answer, or not as a store should."""

    exit_status = 15
    transient = True
    default_hint = "check that the store is mounted or reachable and that you may write to it, then try again"

    def __init__(self, title: str, *, cause: str = "", hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(title, cause=cause, hint=hint)
        self.retry_after = retry_after  # seconds that the store asked to be left alone for, if it did


class StorageMissing(StorageUnavailable):
    """The place where objects are kept is not there: never created, moved away, or not mounted."""

    transient = False
    default_hint = "check the address; if it is on a disk or a share, mount it"


class StorageRefused(StorageUnavailable):
    """The store answered, and said no: credentials, permissions, or a rule of its own."""

    transient = False
    default_hint = "check the credentials and what they allow"


class StorageUnfit(StorageUnavailable):
    """The store works, but cannot do what a repository relies on."""

    transient = False
    default_hint = "use another store; `backstay check-storage` shows what this one can do"


class TierNotAttached(StorageUnavailable):
    """The store that holds the cold packs is not there; it says nothing about what lies in it."""

    transient = False
    default_hint = "attach the disk of the cold tier, then repeat the command; `backstay tier show` tells its address"


class ObjectFrozen(StorageUnavailable):
    """The object lies in an archive, which gives it only some time after it was asked to."""

    exit_status = 18
    transient = False
    default_hint = "`restore`, `cat`, `copy` and `export` ask the archive for all that they need, and wait"


class ThawPending(ObjectFrozen):
    """The archive was asked for objects, and has not brought them up yet."""

    default_hint = "repeat the command later: nothing is asked for twice"


class HoldViolation(BackstayError):
    """A hold or a policy protects what should be removed."""

    exit_status = 16
    default_hint = "clear the hold first, if you may"


class QuorumNotReached(BackstayError):
    """Too few validators attested a snapshot; `missing` are the names of those who have not."""

    exit_status = 16
    default_hint = "let them attest it, or take an accepted one"

    def __init__(self, title: str, *, cause: str = "", hint: str = "", missing: tuple[str, ...] = ()) -> None:
        super().__init__(title, cause=cause, hint=hint)
        self.missing = missing


class ValueInUse(HoldViolation):
    """A live snapshot of a graph refers to the value that should be removed."""

    default_hint = "delete the snapshots that refer to it first"


class ValueBusy(BackstayError):
    """A writer said that it is about to refer to values, and has not ended: none may be removed meanwhile."""

    exit_status = 11
    transient = True
    default_hint = "try again when the other one has finished; a program that is gone is done without after an hour"


class SourceUnreachable(BackstayError):
    """A database could not be reached, or went away."""

    exit_status = 15
    transient = True
    default_hint = "check the address, and that the server runs and lets this machine in"


class SourceRefused(BackstayError):
    """A database answered, and did not do what was asked; `state` is its SQLSTATE, where it gave one."""

    default_hint = "check the role and what it may do"

    def __init__(self, title: str, *, cause: str = "", hint: str = "", state: str = "") -> None:
        super().__init__(title, cause=cause, hint=hint)
        self.state = state


class SlotInUse(SourceRefused):
    """Another receiver streams through the slot; a server lets only one do so."""

    default_hint = "stop the other receiver, or give this one another --name"


class ReplicationDenied(SourceRefused):
    """The role may not replicate, or no line of pg_hba.conf lets it."""

    default_hint = "`backstay pg setup` prints the SQL, or the line of pg_hba.conf, that is needed"


class WalLevelTooLow(SourceRefused):
    """The server writes too little into its WAL, or has no slot or sender left for a receiver."""

    default_hint = (
        "set wal_level = replica, max_wal_senders and max_replication_slots, and restart it: "
        "`backstay pg setup` prints the SQL"
    )


class CorruptedSource(BackstayError):
    """What should be backed up is damaged; a backup of it would look like a good one."""

    default_hint = "restore it from an earlier snapshot"


class ChecksumFailure(CorruptedSource):
    """The server found pages that are not as it wrote them, while it sent them; the snapshot is marked as damaged."""

    default_hint = (
        "find what is damaged with pg_amcheck, and mend it: an index by REINDEX, a table from an earlier base backup"
    )


class IdentityMismatch(BackstayError):
    """Another cluster or server answers than the one whose backups have this name."""

    default_hint = "check the address, or choose another --name for the new cluster"


class VersionUnsupported(BackstayError):
    """This version of a server or of its programs cannot do what is needed."""

    default_hint = "install the programs of the server's own version, or newer ones"


class ClientTooOld(VersionUnsupported):
    """The client programs of a database that are here are older than its server, or there are none."""


class DumpFailed(BackstayError):
    """A program of the database ended with an error; what it wrote is not used."""

    default_hint = "mend what it says, then run the same command again"


class SlotLost(BackstayError):
    """The server removed WAL that the slot should have kept."""

    default_hint = "raise max_slot_wal_keep_size; what follows can be recovered from the next base backup on"


class WalGap(BackstayError):
    """WAL between two stored segments is missing, so that nothing after it can be reached from before it."""

    default_hint = "choose a target before the gap or a base backup behind it: `backstay pg windows` shows them"


class SnapshotIncomplete(WalGap):
    """The WAL that makes a base backup consistent is not stored, or not any more."""

    default_hint = "use another base backup: `backstay pg windows` shows which there are"


class WalConflict(BackstayError):
    """Two different segments claim the same name: two clusters, or a cluster that was restored on the same timeline."""

    default_hint = "find out which cluster sent it; a restored one must be promoted to a timeline of its own"


class WalWrongSize(BackstayError):
    """A WAL segment is shorter or longer than those of its cluster: it is torn, or no segment."""

    default_hint = "archive only what the server passes to archive_command"


class ServiceRunning(BackstayError):
    """Another process answers at the same socket."""

    exit_status = 11
    default_hint = "stop the other one, or give this one another --socket"


class TargetNotCovered(BackstayError):
    """The recovery target cannot be reached with what is stored."""

    default_hint = "`backstay pg windows` shows what can be reached"


class TargetBeforeSnapshot(TargetNotCovered):
    """The recovery target lies before everything that a recovery could begin with."""


class RecoveryFailed(BackstayError):
    """A server started from a backup ended, or did not come to its recovery target."""

    default_hint = "its log says why"


class RecoveryTimeout(RecoveryFailed):
    """A server started from a backup had not recovered by the time that it was given."""

    default_hint = "give it longer with --patience"


class GraphError(BackstayError):
    """A graph of computed values is not what it must be; nothing was changed."""

    default_hint = "mend the graph; docs/graphs.md says what it must be"


class InvalidNode(GraphError):
    """A field of a node or of a graph is missing, unknown, or has a value that cannot be."""


class InvalidDocument(GraphError):
    """A file that should describe a graph cannot be read as one."""

    default_hint = "it was not written by Backstay, or changed since; docs/graphs.md has the formats"


class DuplicateNode(GraphError):
    """Two nodes have one id."""

    default_hint = "use `replace` to put a node in the place of another"

    def __init__(self, node: str) -> None:
        super().__init__(f"node {node} is there already", cause="an id names one node of a graph")
        self.node = node


class UnknownNode(GraphError):
    """The graph has no node of this id."""

    default_hint = "`backstay graph show` lists the nodes of a snapshot"

    def __init__(self, node: str, *, graph: str) -> None:
        super().__init__(f"graph {graph} has no node {node!r}")
        self.node = node


class MissingDependency(GraphError):
    """Nodes depend on nodes that are not there; `missing` has for each of these who needs it."""

    default_hint = "add the missing nodes, or take them out of the deps of those that name them"

    def __init__(self, missing: Mapping[str, tuple[str, ...]]) -> None:
        told = [f"{node} (needed by {', '.join(_cut(by))})" for node, by in missing.items()]
        super().__init__("the graph lacks nodes that others depend on", cause="; ".join(_cut(told)))
        self.missing = missing


class CycleFound(GraphError):
    """Nodes depend on themselves; each of `cycle` on the next, and the last on the first."""

    default_hint = "take one of these dependencies away"

    def __init__(self, cycle: tuple[str, ...]) -> None:
        super().__init__("the graph has a cycle", cause=" → ".join((*_cut(cycle), cycle[0])))
        self.cycle = cycle


class OutputConflict(GraphError):
    """The outputs of two nodes would be one file, or one the directory of the other."""

    default_hint = "give each node a path of its own"

    def __init__(self, path: str, nodes: tuple[str, str]) -> None:
        super().__init__(
            f"nodes {nodes[0]} and {nodes[1]} cannot both have their outputs", cause=f"both need the path {path}"
        )
        self.path = path
        self.nodes = nodes


class OutputMissing(GraphError):
    """The value that a node made is not stored."""

    default_hint = "recompute it by `backstay graph restore`"


class OutputMismatch(GraphError):
    """A value is not the one that a node made: its bytes, its size or its form are others."""

    default_hint = "recompute it by `backstay graph restore`"


class RecomputeFailed(GraphError):
    """A node could not be made again: what should make it raised, gave up, or made something else."""

    default_hint = "mend the cause and run the same restore again: nodes that are good already are left alone"


class RecomputeTimeout(RecomputeFailed):
    """Making a node again took longer than it may."""

    default_hint = "give it more time by the policy's deadline, or see why it hangs"


class WorkerLost(RecomputeFailed):
    """The process that should make a node ended, or answers what makes no sense."""

    transient = True
    default_hint = "start its command by hand to see what it says"


class InputLost(GraphError):
    """What a node is made from cannot be read."""

    default_hint = "run the same restore again: it recomputes that first"


class OutputsBusy(GraphError):
    """Another restore writes into the same directory."""

    exit_status = 11
    transient = True
    default_hint = "wait until it has ended"


def _cut(names: Sequence[str]) -> list[str]:
    """The names that a person can still read; programs find all of them in the error."""
    if len(names) <= _TOLD_NODES:
        return list(names)
    return [*names[:_TOLD_NODES], f"… {len(names) - _TOLD_NODES} more"]


class Interrupted(BackstayError):
    """The user asked to stop; the repository is good and the next run continues."""

    exit_status = 130
    default_hint = "run the same command again to continue"


class InternalError(BackstayError):
    """The program met something that it was not made for."""

    default_hint = "run the command again with -v, and report what it shows"
