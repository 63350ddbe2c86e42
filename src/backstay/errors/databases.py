"""Errors of databases, their logs, and recoveries from them."""

from __future__ import annotations

from backstay.errors.base import BackstayError, InvalidRequest


class BadWalName(InvalidRequest):
    """PostgreSQL gives no such name to a file of its log."""

    default_hint = "pass %p of archive_command"


class NaiveTimestamp(InvalidRequest):
    """A recovery target is a time without a zone."""

    default_hint = "write it with a zone, as in '2026-11-20 12:34:56+00'"


class TargetAmbiguousTimeline(InvalidRequest):
    """The recovery target lies on several timelines, behind where they parted, and means another state on each."""

    default_hint = "name the timeline with --timeline N"


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
