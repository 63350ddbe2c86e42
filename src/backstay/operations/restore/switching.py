"""Put staged items in the place of old ones, or back: each row of a journal, wherever a crash left it.

Where the file system can, two items change places in one step (RENAME_EXCHANGE), so that no path is ever without one.
Else the old one waits in `hold` while the new one is renamed. Inode numbers tell what lies where, so that every row can
be carried out from any state that a crash may leave, in both directions.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from backstay.core.names import printable
from backstay.operations.restore.in_place_plan import Change
from backstay.operations.restore.journal import HOLD, Dress, Row, Switch
from backstay.operations.restore.looks import look_of
from backstay.sources.directory_descriptors import PATH_ONLY, is_closed_to_owner
from backstay.sources.facts import set_mode
from backstay.sources.source import Problem
from backstay.sources.switch_calls import SwitchCalls
from backstay.sources.target_directory import names_aside

_CANNOT: Final = frozenset({errno.ENOSYS, errno.EINVAL})
_OWNER_ALL: Final = 0o700
_OWNER_ENTERS: Final = 0o100

_Role: TypeAlias = Literal["live", "dressed", "staged", "hold"]
_OURS: Final = frozenset[_Role]({"staged", "hold"})


class ChangedMeanwhile(OSError):
    """Another program put something else there since the restore was planned."""


@dataclass(slots=True)
class _Spot:
    """One name in an open directory, or in one that is not there."""

    directory: int | None
    name: bytes

    @property
    def fd(self) -> int:
        if self.directory is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self.directory

    def inode(self) -> int | None:
        info = self.info()
        return None if info is None else info.st_ino

    def info(self) -> os.stat_result | None:
        try:
            return os.stat(self.name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None


_Spots: TypeAlias = tuple[_Spot, _Spot, _Spot]  # live, staged, hold


@dataclass(slots=True)
class Switching:
    """The rows of one restore. Raises OSError."""

    areas: tuple[bytes, ...]
    calls: SwitchCalls
    problems: list[Problem] = field(default_factory=list)
    _open: dict[_Role, tuple[bytes, int]] = field(default_factory=dict)
    _can_exchange: bool = True
    _anew: set[bytes] = field(default_factory=set)
    _written: set[bytes] = field(default_factory=set)  # old items that were changed before they changed places

    def prepare(self, changes: Iterable[Change]) -> list[Switch]:
        """The rows for what is staged, without what could not be made here, such as device nodes.

        The directories that old items go to are made now, so that neither the switch nor its undoing needs room.
        """
        rows: list[Switch] = []
        try:
            for change in changes:
                with _telling(change.live):
                    area = self.areas[change.area]
                    staged = self._spot(area + b"/" + change.staged, "staged", make=True)
                    self._directory(area + b"/" + HOLD, "hold", make=True)
                    info = None if change.removal else staged.info()
                    look = None if info is None else look_of(staged.fd, staged.name, info)
                if info is not None or change.removal:
                    new = None if info is None else info.st_ino
                    rows.append(_row(change, new, look))
        finally:
            self._close()
        return rows

    def forward(self, rows: Iterable[Row]) -> None:
        """Everything new in its place, and durable."""
        self._require_areas()
        try:
            for number, row in enumerate(rows):
                with _telling(row.live):
                    if isinstance(row, Switch):
                        self._forward(row, self._spots(row, number, forward=True))
                    else:
                        self._dress(row)
            self._sync()
        finally:
            self._close()

    def back(self, rows: Iterable[Row]) -> None:
        """Everything old in its place, and durable; what was put or written there meanwhile is set aside.

        What cannot come back stays where it waits and holds up nothing else; its error is raised in the end.
        """
        self._require_areas()
        first: OSError | None = None
        failures = 0
        try:
            for number, row in enumerate(rows):
                try:
                    with _telling(row.live):
                        self._back(row, number) if isinstance(row, Switch) else self._undress(row)
                except OSError as error:
                    first, failures = first or error, failures + 1
            self._sync()
        finally:
            self._close()
        if first is not None:
            raise first if failures == 1 else _with_more(first, failures - 1)

    def spare_old(self, rows: Iterable[Row]) -> None:
        """After `forward`, before old items are removed: those that were written to since they were compared stay."""
        problems = len(self.problems)
        try:
            for row in rows:
                if isinstance(row, Switch) and row.old_look is not None:
                    with _telling(row.live):
                        self._spare_old(row, row.old_look)
            if len(self.problems) > problems:
                self._sync()
        finally:
            self._close()

    def set_aside(self, paths: Iterable[bytes]) -> None:
        """Give other names to what must not be beside an item that gets its place, and make that durable."""
        problems = len(self.problems)
        try:
            for path in paths:
                with _telling(path):
                    spot = self._spot(path, "live")
                    self._set_aside(path, spot, spot, "it came since")
            if len(self.problems) > problems:
                self._sync()
        finally:
            self._close()

    # -- one row

    def _forward(self, row: Switch, spots: _Spots) -> None:
        info = spots[0].info()
        live, staged, hold = None if info is None else info.st_ino, spots[1].inode(), spots[2].inode()
        if info is not None and live == row.old and row.old_changed not in (0, info.st_ctime_ns):
            self._written.add(row.live)
        if live not in (row.new, row.old) and (staged, hold) == (row.old, None):
            return  # it was switched before a crash, and another program has changed it since
        if row.new is not None and row.new not in (live, staged, hold):
            raise _changed(row)
        self._switch(row, spots, wanted=row.new, other=row.old)

    def _back(self, row: Switch, number: int) -> None:
        spots = self._spots(row, number, forward=False)
        self._clear_strange(row, spots[0])
        self._switch(row, spots, wanted=row.old, other=row.new)
        self._spare_written(row, spots)

    def _switch(self, row: Switch, spots: _Spots, *, wanted: int | None, other: int | None) -> None:
        """Bring the item `wanted` to the live place and `other` to the staged one."""
        live, staged, hold = spots
        now = (live.inode(), staged.inode(), hold.inode())
        if {inode for inode in now if inode is not None} - {wanted, other}:
            raise _changed(row)
        if now[0] == wanted and now[2] is None:
            return
        if now == (other, wanted, None) and None not in now[:2] and self._exchanged(live, staged):
            return
        if live.inode() == other and other is not None:
            self._move(live, staged if staged.inode() is None else hold)
        if wanted is not None and live.inode() is None:
            source = next((spot for spot in (staged, hold) if spot.inode() == wanted), None)
            if source is None:
                self.problems.append(Problem(row.live, "what was there is gone: another program removed it"))
            else:
                self._move(source, live)
        if other is not None and hold.inode() == other:
            self._move(hold, staged)

    def _exchanged(self, one: _Spot, other: _Spot) -> bool:
        if not self._can_exchange:
            return False
        self._let_move(one)
        self._let_move(other)
        try:
            self.calls.exchange(one.fd, one.name, other.fd, other.name)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            self._can_exchange = False
        return self._can_exchange

    def _move(self, source: _Spot, target: _Spot) -> None:
        self._let_move(source)
        self.calls.move(source.fd, source.name, target.fd, target.name)

    def _let_move(self, spot: _Spot) -> None:
        """A directory of ours that forbids its owner to write cannot be moved; its own row gives the mode back."""
        info = spot.info()
        if info is None or not stat.S_ISDIR(info.st_mode):
            return
        if is_closed_to_owner(info.st_uid, info.st_mode, _OWNER_ALL):
            self.calls.step("let move")
            set_mode(spot.fd, spot.name, stat.S_IMODE(info.st_mode) | _OWNER_ALL)

    def _clear_strange(self, row: Switch, live: _Spot) -> None:
        """What neither was there nor came from the snapshot keeps existing, under another name."""
        inode = live.inode()
        if inode in (None, row.old, row.new):
            return
        self._set_aside(row.live, live, live)

    def _spare_written(self, row: Switch, spots: _Spots) -> None:
        """What came from the snapshot and was written to since is nowhere else: it must not go with what is staged."""
        live, staged, _ = spots
        info = staged.info()
        if info is None or info.st_ino != row.new or look_of(staged.fd, staged.name, info) == row.look:
            return
        self._let_move(staged)
        self._set_aside(row.live, staged, live)

    def _spare_old(self, row: Switch, look: str) -> None:
        staged = self._spot(self.areas[row.area] + b"/" + row.staged, "staged", may_lack=True)
        info = None if staged.directory is None else staged.info()
        if info is None or info.st_ino != row.old:
            return
        if row.live in self._written or look_of(staged.fd, staged.name, info) != look:
            self._let_move(staged)
            self._set_aside(
                row.live, staged, self._spot(row.live, "live", make=True), "what was there changed meanwhile"
            )

    def _set_aside(self, path: bytes, source: _Spot, live: _Spot, why: str = "it changed meanwhile") -> None:
        for name in names_aside(live.name):
            try:
                self.calls.move(source.fd, source.name, live.fd, name)
            except FileExistsError:
                continue
            self.problems.append(Problem(path, f"{why}, and is now {printable(name)}"))
            return

    # -- attributes

    def _dress(self, row: Dress) -> None:
        if row.new is None and not row.keep_mode:
            return
        spot = self._spot(row.live, "dressed")
        if row.new is not None:
            self.calls.step("dress")
            self._put(row, spot, forward=True)
        elif row.old is not None and row.keep_mode:
            self.calls.step("dress")
            if not set_mode(spot.fd, spot.name, stat.S_IMODE(row.old.mode), inode=row.inode):
                self._was_replaced(row)

    def _undress(self, row: Dress) -> None:
        if row.old is None:
            return
        spot = self._spot(row.live, "dressed", may_lack=True)
        self.calls.step("undress")
        self._put(row, spot, forward=False)

    def _put(self, row: Dress, spot: _Spot, *, forward: bool) -> None:
        facts = row.new if forward else row.old
        assert facts is not None
        inode = None if row.live in self._anew else row.inode

        def report(what: str, error: Exception) -> None:
            self.problems.append(Problem(row.live, f"{what}: {getattr(error, 'strerror', None) or error}".lower()))

        try:
            if not facts.put(spot.fd, spot.name, report, all_of_them=not forward, inode=inode):
                self._was_replaced(row)
        except FileNotFoundError:
            self.problems.append(Problem(row.live, "it is gone: another program removed it"))

    def _was_replaced(self, row: Dress) -> None:
        self.problems.append(Problem(row.live, "another program replaced it, and what is there keeps its attributes"))

    # -- places

    def _spots(self, row: Switch, number: int, *, forward: bool) -> _Spots:
        """Where an area lacks a directory nothing is staged; a live one is made anew for what comes back into it.

        Forwards those of an area are made where a stop of the machine lost them.
        """
        area = self.areas[row.area]
        staged = self._spot(area + b"/" + row.staged, "staged", make=forward, may_lack=not forward)
        hold = self._spot(area + b"/" + HOLD + b"/%d" % number, "hold", make=forward, may_lack=not forward)
        comes_back = not forward and row.old is not None and row.old in (staged.inode(), hold.inode())
        live = self._spot(row.live, "live", make=comes_back, may_lack=not forward and not comes_back)
        return live, staged, hold

    def _spot(self, path: bytes, role: _Role, *, make: bool = False, may_lack: bool = False) -> _Spot:
        """The directory of a path, opened without following links, and open enough to its owner; and the last name."""
        above, _, name = path.rpartition(b"/")
        try:
            return _Spot(self._directory(above, role, make=make), name or b".")
        except (FileNotFoundError, NotADirectoryError):
            if not may_lack:
                raise
            return _Spot(None, name)

    def _directory(self, path: bytes, role: _Role, *, make: bool) -> int:
        """One of each role is kept open: rows come directory by directory."""
        known = self._open.get(role)
        if known is not None and known[0] == path:
            return known[1]
        if known is not None:
            del self._open[role]
            os.close(known[1])
        fd, here = os.open(b"/", PATH_ONLY | os.O_DIRECTORY), b""
        for part in filter(None, path.split(b"/")):
            here += b"/" + part
            try:
                if make and _Spot(fd, part).info() is None:
                    self.calls.mkdir(fd, part)
                    self._note_made(here, role)
                below = self._enter(fd, part, ours=role in _OURS)
            finally:
                os.close(fd)
            fd = below
        self._open[role] = (path, fd)  # so that it is closed whatever comes
        self._let_owner_in(fd, _OWNER_ENTERS if role == "dressed" else _OWNER_ALL)
        return fd

    def _note_made(self, path: bytes, role: _Role) -> None:
        if role not in _OURS:
            self._anew.add(path)
            self.problems.append(Problem(path, "it was gone, and was made anew"))

    def _enter(self, fd: int, name: bytes, *, ours: bool) -> int:
        try:
            below = os.open(name, PATH_ONLY | os.O_DIRECTORY, dir_fd=fd)
        except PermissionError:
            self._let_owner_in(fd, _OWNER_ENTERS)
            below = os.open(name, PATH_ONLY | os.O_DIRECTORY, dir_fd=fd)
        if ours:
            try:
                self._let_owner_in(below, _OWNER_ALL)
            except OSError:
                os.close(below)
                raise
        return below

    def _let_owner_in(self, fd: int, needed: int) -> None:
        """A live directory's own row gives the mode back."""
        info = os.fstat(fd)
        if is_closed_to_owner(info.st_uid, info.st_mode, needed):
            self.calls.step("let in")
            os.chmod(b"/proc/self/fd/%d" % fd, stat.S_IMODE(info.st_mode) | _OWNER_ALL)  # noqa: PTH101

    def _require_areas(self) -> None:
        """One that is not there, such as on a disk that is not attached, must not be made anew."""
        for area in self.areas:
            os.lstat(area)

    def _sync(self) -> None:
        self._close()
        for area in self.areas:
            fd = os.open(area, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self.calls.sync(fd)
            finally:
                os.close(fd)

    def _close(self) -> None:
        for _, fd in self._open.values():
            os.close(fd)
        self._open.clear()


@contextmanager
def _telling(live: bytes) -> Iterator[None]:
    """A system call that fails knows a name at best; what a person has to look at is the path."""
    try:
        yield
    except ChangedMeanwhile:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fsdecode(live)) from error


def _with_more(error: OSError, count: int) -> OSError:
    return OSError(error.errno, f"{error.strerror}, and {count} more could not be put back", error.filename)


def _row(change: Change, new: int | None, look: str | None) -> Switch:
    return Switch(change.live, change.area, change.staged, new, change.old, look, change.old_look, change.old_changed)


def _changed(row: Switch) -> ChangedMeanwhile:
    return ChangedMeanwhile(errno.ESTALE, "it changed since the restore was planned", os.fsdecode(row.live))
