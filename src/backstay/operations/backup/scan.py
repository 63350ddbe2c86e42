"""Walk a source beside the stat stream of an earlier snapshot, and say in walk order what is to be done."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from backstay.codec.compression import Buffer
from backstay.repository.nodes import Node
from backstay.repository.trees.listings import MAX_DEPTH
from backstay.repository.trees.stat_stream import Leave, StatCursor, Subtree
from backstay.sources.changes import Changes, Look
from backstay.sources.exhaustion import refuse_exhaustion
from backstay.sources.refusals import words_of
from backstay.sources.source import Capture, Directory, Problem, Source, Stat


class Resume(Protocol):
    """What an interrupted run stored already."""

    def find(self, path: bytes, entry: Stat) -> Node | None:
        """The finished node of an unchanged file, if all of its chunks are in the repository."""
        ...


@dataclass(slots=True, eq=False)
class Visit:
    """One directory on the walk."""

    directory: Directory
    entry: Stat | None  # by which it was listed; the root was not
    parent: Visit | None
    has_base: bool
    subdirs: list[Stat] = field(default_factory=list)
    replaced: set[bytes] = field(default_factory=set)  # subdirectories that are others than before

    @property
    def name(self) -> bytes:
        return self.entry[0] if self.entry is not None else b""

    def path_of(self, name: bytes) -> bytes:
        path = self.directory.path
        return path + name if path.endswith(b"/") else path + b"/" + name


@dataclass(slots=True, eq=False)
class Enter:
    """A directory begins."""

    visit: Visit


@dataclass(slots=True, eq=False)
class Take:
    """One entry is to be captured; `capture` or `error` is filled in by whoever runs it."""

    visit: Visit
    entry: Stat
    is_new: bool
    capture: Capture | None = None
    chunks: list[tuple[bytes, Buffer]] | None = None
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class Resumed:
    """One entry was stored by an interrupted run."""

    visit: Visit
    entry: Stat
    node: Node


@dataclass(slots=True, eq=False)
class Page:
    """Part of a directory's entries, after a step for each that is not as before.

    `unchanged` is the encoded page of the earlier snapshot when every entry is as before, else None.
    """

    visit: Visit
    rows: Sequence[Stat]
    first: bool
    unchanged: bytes | None


@dataclass(slots=True, eq=False)
class Unreadable:
    """A child directory that cannot be entered."""

    visit: Visit
    entry: Stat


@dataclass(slots=True, eq=False)
class Left:
    """A directory ends; `base` is its end in the earlier snapshot."""

    visit: Visit
    base: Leave | None


@dataclass(slots=True, eq=False)
class Kept:
    """Part of a child directory, with all below it, that is as it was; the last part tells its listing."""

    visit: Visit
    entry: Stat
    part: Subtree


Step: TypeAlias = Enter | Take | Resumed | Page | Unreadable | Left | Kept


class Scan:
    """One walk. Directories stay open until the consumer of the steps closes them at `Left`.

    Raises BackupFailed when this machine has run out of something.
    """

    def __init__(
        self, source: Source, base: StatCursor | None, resume: Resume | None, changes: Changes | None = None
    ) -> None:
        """`changes` are those since the snapshot of `base`."""
        self._source, self._cursor, self._resume = source, base, resume
        self._changes = changes if base is not None else None

    def steps(self) -> Iterator[Step]:
        """Depth first, names in order; all entries of a directory come before what lies in its children."""
        root = Visit(self._source.root(), None, None, has_base=False)
        yield from self._begin(root, inside_base=self._cursor is not None)
        stack = [(root, iter(root.subdirs))]
        while stack:
            visit, children = stack[-1]
            entry = next(children, None)
            if entry is None:
                stack.pop()
                yield Left(visit, self._cursor.leave() if visit.has_base and self._cursor else None)
                continue
            look = self._look(visit, entry)
            if look is Look.NOTHING and self._cursor is not None and self._cursor.is_at(entry[0]):
                for part in self._cursor.subtree():
                    yield Kept(visit, entry, part)
                continue
            child = self._enter(visit, entry, len(stack))
            if child is None:
                yield Unreadable(visit, entry)
                continue
            if look is not Look.ALL and child.directory.unlike(entry) is not None:
                look = Look.ALL
            yield from self._begin(child, inside_base=visit.has_base, look=look)
            stack.append((child, iter(child.subdirs)))

    def _look(self, parent: Visit, entry: Stat) -> Look:
        """What to look at in a child. One that is another directory than before is not the one that is known."""
        if self._changes is None or not parent.has_base or entry[0] in parent.replaced:
            return Look.ALL
        return self._changes.look(parent.path_of(entry[0]))

    def _enter(self, parent: Visit, entry: Stat, depth: int) -> Visit | None:
        try:
            if depth >= MAX_DEPTH:  # its listing names it all the same, empty
                raise OSError(errno.ENAMETOOLONG, f"{MAX_DEPTH} directories lie below each other, this is the last")
            return Visit(parent.directory.enter(entry), entry, parent, has_base=False)
        except OSError as error:
            self._report(parent.path_of(entry[0]), error)
            return None

    def _report(self, path: bytes, error: OSError) -> None:
        refuse_exhaustion(path, error)
        self._source.problems.append(Problem(path, words_of(error)))

    def _begin(self, visit: Visit, *, inside_base: bool, look: Look = Look.ALL) -> Iterator[Step]:
        base = self._cursor.enter(visit.name) if inside_base and self._cursor is not None else None
        visit.has_base = base is not None
        yield Enter(visit)
        if base is not None and look is not Look.ALL:
            yield from self._as_before(visit, base)
            return
        merge = _BasePages(self._cursor, base) if base is not None and self._cursor is not None else None
        first = True
        try:
            for rows in visit.directory.pages():
                yield from self._page(visit, rows, merge, first=first)
                first = False
        except OSError as error:
            self._report(visit.directory.path, error)
        if first:
            yield from self._page(visit, [], merge, first=True)
        if merge is not None and merge.has_more():
            yield Page(visit, [], False, None)  # entries at the end are gone: this directory is not as before

    def _as_before(self, visit: Visit, base: tuple[list[Stat], bytes]) -> Iterator[Step]:
        """The pages that the directory had: nothing in it has changed."""
        assert self._cursor is not None
        page: tuple[list[Stat], bytes] | None = base
        while page is not None:
            rows, body = page
            visit.subdirs += [row for row in rows if row[1] & 0o170000 == 0o040000]
            yield Page(visit, rows, page is base, body)
            page = self._cursor.page()

    def _page(self, visit: Visit, rows: Sequence[Stat], merge: _BasePages | None, *, first: bool) -> Iterator[Step]:
        visit.subdirs += [row for row in rows if row[1] & 0o170000 == 0o040000]
        unchanged = merge.take_whole(rows, first=first) if merge is not None else None
        if unchanged is None:
            for row in rows:
                old = merge.find(row[0]) if merge is not None else None
                if old != row:
                    self._note(visit, old, row)
                    yield self._changed(visit, row, is_new=old is None)
        yield Page(visit, rows, first, unchanged)

    def _note(self, visit: Visit, old: Stat | None, row: Stat) -> None:
        if self._changes is None:
            return
        if visit.has_base:
            self._changes.differs(visit.directory.path, old, row)
        if old is None or old[5] != row[5]:
            visit.replaced.add(row[0])

    def _changed(self, visit: Visit, row: Stat, *, is_new: bool) -> Step:
        if self._resume is not None and stat.S_ISREG(row[1]):
            node = self._resume.find(visit.path_of(row[0]), row)
            if node is not None:
                return Resumed(visit, row, node)
        return Take(visit, row, is_new)


class _BasePages:
    """The earlier entries of one directory, consumed in step with the present ones."""

    def __init__(self, cursor: StatCursor, first: tuple[list[Stat], bytes]) -> None:
        self._cursor = cursor
        self._rows, self._body = first
        self._at = 0
        self._is_first = True

    def take_whole(self, rows: Sequence[Stat], *, first: bool) -> bytes | None:
        """The encoded page, if the next earlier page has exactly these rows and the same role; consumes it."""
        self._turn()
        if self._at or self._is_first != first or self._rows != rows:
            return None
        self._at = len(self._rows)
        return self._body

    def find(self, name: bytes) -> Stat | None:
        """The earlier row of this name; names are asked for in order."""
        while True:
            self._turn()
            if self._at >= len(self._rows):
                return None
            row = self._rows[self._at]
            if row[0] > name:
                return None
            self._at += 1
            if row[0] == name:
                return row

    def has_more(self) -> bool:
        self._turn()
        return self._at < len(self._rows)

    def _turn(self) -> None:
        """Go to the next page when this one is used up."""
        while self._rows and self._at >= len(self._rows):
            following = self._cursor.page()
            if following is None:
                return
            self._rows, self._body = following
            self._at, self._is_first = 0, False
