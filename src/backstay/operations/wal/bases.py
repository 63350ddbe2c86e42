"""The base backups of PostgreSQL clusters in a repository: snapshots that say where in the WAL they lie."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from backstay.errors import CorruptedBackup, InvalidRequest, NotFound
from backstay.repository.blobs.contents import read_content
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import REPAIRED_FROM, Manifest, OnDamage
from backstay.repository.trees.listings import find_node
from backstay.sources.postgres.lsn import SEGMENT, parse_lsn, segment_name

SERVER_MANIFEST: Final = b"backup_manifest"  # of a snapshot, as the server sent it
DAMAGED: Final = "damaged"  # in `consistency`: what the server found damaged in what it sent; a tag as well
CONTENT_TIME: Final = "content_time"  # the same: the last commit that a standby had replayed
_SOURCE: Final = "postgres:"  # begins the source of a base backup; its cluster's system identifier follows


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base backup: consistent from `stop_lsn` on, if the WAL from `start_lsn` to there is stored.

    `stop_time` is the moment that it shows: when it ended, or of a standby that of the last commit which it holds.
    """

    snapshot: str
    name: str
    system: int
    timeline: int
    start_lsn: int
    stop_lsn: int
    stop_time: datetime
    segment_size: int = SEGMENT  # bytes
    version: str = ""  # of the server
    tablespaces: tuple[int, ...] = ()  # outside of the data directory, by oid
    damage: str = ""  # what `damage_of` says
    manifest: Manifest | None = field(default=None, compare=False, repr=False)

    def needs(self, start: int) -> bool:
        """Whether it may not be consistent without a segment that begins at a position, of any timeline."""
        return start <= self.stop_lsn and start + self.segment_size > self.start_lsn

    def segments(self) -> list[str]:
        """The segments without which it is not consistent."""
        first = self.start_lsn - self.start_lsn % self.segment_size
        starts = range(first, max(self.stop_lsn, self.start_lsn + 1), self.segment_size)
        return [segment_name(self.timeline, start, self.segment_size) for start in starts]


def source_of(system: int) -> str:
    """What `Manifest.source` says of the base backups of a cluster."""
    return f"{_SOURCE}{system}"


def is_base(manifest: Manifest) -> bool:
    """Whether a snapshot is a base backup."""
    return manifest.source.startswith(_SOURCE) and "stop_lsn" in manifest.consistency


def damage_of(manifest: Manifest) -> str:
    """Why a base backup is not what the server should have been: nothing is built upon it. Empty if it is good."""
    if DAMAGED in manifest.consistency:
        return f"it holds damaged pages: {manifest.consistency[DAMAGED]}"
    if REPAIRED_FROM in manifest.consistency and manifest.stats.errors:  # by itself it leaves nothing out
        return "it lacks files, which were lost in the repository and left out by a repair"
    return ""


def base_backups(repository: Repository, name: str | None = None, *, on_damage: OnDamage | None = None) -> list[Base]:
    """The base backups of a name, or of all, oldest first by the server's clock: ids tell when they came here.

    Raises CorruptedBackup.
    """
    found = [base_of(manifest) for manifest in repository.snapshots.live(on_damage) if is_base(manifest)]
    chosen = [base for base in found if name in (None, base.name)]
    return sorted(chosen, key=lambda base: (base.stop_time, base.snapshot))


def sound(bases: Iterable[Base]) -> list[Base]:
    """Those that are whole: only they are chosen unless somebody names another, and only they end a gap."""
    return [base for base in bases if not base.damage]


def require_bases(repository: Repository, name: str) -> list[Base]:
    """The base backups of the cluster that has a name, oldest first; ones that cannot be read are left out.

    Raises NotFound when there is none.
    """
    return bases_of(readable_bases(repository), name)


def readable_bases(repository: Repository) -> list[Base]:
    """Those of all names, oldest first; ones that cannot be read are left out."""
    return base_backups(repository, on_damage=lambda _name, _error: None)


def bases_of(every: Iterable[Base], name: str) -> list[Base]:
    """Of base backups those of the cluster that has a name. Raises NotFound when there is none."""
    bases = [base for base in every if base.name == name]
    if not bases:
        raise NotFound(
            f"there is no base backup of {name}",
            cause="none was made under this name, or all were deleted",
            hint="make one with `backstay pg backup`; `backstay list` shows the names there are",
        )
    return [base for base in bases if base.system == bases[-1].system]


def base_of(manifest: Manifest) -> Base:
    """What a snapshot says of itself. Raises CorruptedBackup."""
    facts = manifest.consistency
    try:
        return Base(
            snapshot=manifest.id,
            name=manifest.name or "",
            system=int(facts["system_id"]),
            timeline=int(facts["timeline"]),
            start_lsn=parse_lsn(facts["start_lsn"]),
            stop_lsn=parse_lsn(facts["stop_lsn"]),
            stop_time=_aware(facts.get(CONTENT_TIME, facts["stop_time"])),
            segment_size=int(facts.get("segment_size", SEGMENT)),
            version=facts.get("version", ""),
            tablespaces=tuple(sorted(int(key.partition(".")[2]) for key in facts if key.startswith("tablespace."))),
            damage=damage_of(manifest),
            manifest=manifest,
        )
    except (KeyError, ValueError, InvalidRequest) as error:
        raise CorruptedBackup(
            f"snapshot {manifest.id} is no base backup that can be used", cause=f"{type(error).__name__}: {error}"
        ) from error


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return moment


def server_manifest(snapshot: Manifest, reader: BlobReader) -> bytes:
    """The manifest that a server sent with a base backup. Raises NotFound, CorruptedBackup."""
    node = find_node(snapshot.root, b"/" + SERVER_MANIFEST, reader)
    if node is None or node.content is None:
        raise NotFound(f"snapshot {snapshot.id} holds no manifest of the server")
    return b"".join(map(bytes, read_content(node.content, reader)))
