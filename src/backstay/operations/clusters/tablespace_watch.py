"""Tablespaces that were made behind the newest base backup: beside its server nothing is recovered past them."""

from __future__ import annotations

from collections.abc import Sequence

from backstay.core.events import EventSink, Warned
from backstay.operations.clusters.required_base import RequiredBase
from backstay.operations.wal.bases import Base
from backstay.operations.wal.storing import Piece
from backstay.sources.postgres.base_backup import Tablespace
from backstay.sources.postgres.lsn import format_lsn
from backstay.sources.postgres.made_tablespaces import TablespaceReader
from backstay.sources.postgres.timelines import Path


def made_behind(bases: Sequence[Base], present: Sequence[Tablespace]) -> list[Tablespace]:
    """Those of a server that the newest of its base backups, oldest first, does not have."""
    return [space for space in present if bases and space.oid not in bases[-1].tablespaces]


class TablespaceWatch:
    """Has a base backup made behind each CREATE TABLESPACE of a cluster, or tells that there should be one."""

    def __init__(self, system: int, bases: RequiredBase | None, events: EventSink) -> None:
        self._system, self._bases, self._events = system, bases, events
        self._path: Path | None = None
        self._segments = TablespaceReader()
        self._seen = 0
        self._told: set[int] = set()  # of which oids somebody knows

    def follow(self, path: Path, position: int, bases: Sequence[Base], present: Sequence[Tablespace]) -> None:
        """The way along which WAL comes from now on, and what its server has at a position."""
        self.turn(path)
        # A base backup that is under way for one is not asked for again at each new session.
        if missing := [space for space in made_behind(bases, present) if space.oid not in self._told]:
            self._told.update(space.oid for space in missing)
            self._require(path, position, f"{missing[0]} is not in the newest one")

    def turn(self, path: Path) -> None:
        """The server goes on along another way: it was promoted."""
        self._path = path

    def noticed(self, piece: Piece) -> None:
        """Look through WAL that was stored; a part shows what the whole segment would show later."""
        reader = self._segments if piece.is_whole else TablespaceReader()
        for made in reader.feed(piece.before + piece.data):
            if made.lsn > self._seen and made.oid not in self._told and self._path is not None:
                self._seen = made.lsn
                self._told.add(made.oid)
                self._require(
                    self._path, made.end, f"tablespace {made.oid} was made in {made.place} at {format_lsn(made.lsn)}"
                )

    def _require(self, path: Path, lsn: int, why: str) -> None:
        if self._bases is not None:
            self._bases.require(self._system, path, lsn, why)
        else:
            self._events(Warned(message=f"{why}: make a base backup behind that, `backstay pg backup`"))
