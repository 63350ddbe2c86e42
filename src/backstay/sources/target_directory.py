"""One directory in the place that a restore writes into: files, directories and links are made in it and nowhere else.

Every directory is opened by the descriptor of its parent, one component at a time and without following symlinks, and
everything is created, renamed and removed relative to such a descriptor. A symlink below the root can therefore not
redirect a write, whether it was there before or is put there during the restore, and openat2(RESOLVE_BENEATH) would
add nothing.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, count
from typing import Final

from backstay.core.names import printable
from backstay.errors import CorruptedBackup, NotFound, RestoreFailed
from backstay.repository.nodes import Node
from backstay.sources import access_lists
from backstay.sources.attributes import Beside
from backstay.sources.directory_descriptors import (
    PATH_ONLY,
    is_readable,
    make_directory,
    open_directory,
    unlink,
)
from backstay.sources.extents import Extents
from backstay.sources.facts import Facts
from backstay.sources.kernel import CLOSED, is_mount_root, mount_id, rename_noreplace
from backstay.sources.mount_points import mounted_within
from backstay.sources.pending_file import Bytes, PendingFile, discard, write_all
from backstay.sources.refusals import Refusal, tried
from backstay.sources.restore_errors import conflict, corrupted, failure, reason
from backstay.sources.target import Target

MAX_NAME: Final = 255
ASIDE: Final = b".backstay-old"
TEMPORARY: Final = b".backstay-"
_LEFTOVER: Final = re.compile(rb"\.backstay-([0-9a-f]{12})-[0-9a-f]+")

_ENCODING: Final = sys.getfilesystemencoding()
_ON_ERROR: Final = sys.getfilesystemencodeerrors()
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_A_DIRECTORY: Final = frozenset({errno.ENOTDIR, errno.ELOOP})


class TargetDirectory:
    """One open directory below the root (or the root); usable by several threads.

    `path` is relative to the root, for messages. Everything raises BackstayError only.

    `is_own` says that what is made in it belongs to this process's user and group: so does the directory itself,
    which this process has made just now, and a file gets the group of its maker or of its directory (open(2)).

    `hands_down` says that what is made in it gets an access list from it. One that this process has made does not.

    `mode` is what it had if that had to be changed to open it: `close` puts it back, unless `finish` has set another.
    """

    __slots__ = ("fd", "hands_down", "is_new", "is_own", "mode", "path", "target")

    def __init__(
        self,
        target: Target,
        fd: int,
        path: bytes,
        *,
        writing: bool = False,
        is_new: bool = False,
        is_own: bool = False,
        hands_down: bool = False,
        mode: int | None = None,
    ) -> None:
        self.fd = fd
        self.target = target
        self.path = path
        self.mode = mode
        self.is_new, self.is_own, self.hands_down = is_new, is_own, hands_down
        if writing:
            info = os.fstat(fd)
            target.writes_to(info.st_dev, fd, is_root=not path)
            self.is_own = (info.st_uid, info.st_gid) == target.attributes.own and is_new
            self.hands_down = not is_new and access_lists.hands_down(fd)

    def child(
        self, name: bytes, *, create: bool, replace_nondir: bool = False, writing: bool = False
    ) -> TargetDirectory:
        """A directory in this one; anything else in its place, symlinks too, is a conflict or is replaced.

        One that is there is opened for `writing` if it is not to be made where it lacks.
        """
        path, is_new = self._at(name), False
        try:
            if create:
                is_new = make_directory(self.fd, name)
            fd, mode = open_directory(self.fd, name, writing=create or writing)
        except FileNotFoundError as error:
            if create:
                raise failure(error, path, "create directory") from error
            raise NotFound(f"directory {printable(path)} does not exist in the target") from error
        except OSError as error:
            if error.errno not in _NOT_A_DIRECTORY:
                raise failure(error, path, "open directory") from error
            if not (replace_nondir and create):
                raise conflict(path, "something that is not a directory is in its place") from error
            self.remove(name)
            return self.child(name, create=True)
        directory = TargetDirectory(self.target, fd, path, writing=create, is_new=is_new, mode=mode)
        if is_new and self.hands_down:
            directory.drop_lists()
        return directory

    def below(self, names: Sequence[bytes], *, removing: bool = False) -> TargetDirectory:
        """The directory that some names lead to, one after the other; this one, opened again, without any.

        For `removing` from it, its owner may write to it meanwhile.
        """
        try:
            found = TargetDirectory(self.target, os.dup(self.fd), self.path)
        except OSError as error:
            raise failure(error, self.path, "open") from error
        for number, name in enumerate(names, 1):
            try:
                following = found.child(name, create=False, writing=removing and number == len(names))
            finally:
                found.close()
            found = following
        return found

    def is_mount_root(self) -> bool:
        """Whether a file system is mounted in this very place."""
        try:
            return is_mount_root(self.fd)
        except OSError as error:
            raise failure(error, self.path, "examine") from error

    def drop_lists(self) -> None:
        """Take its access lists from it, which it has from the directory above."""
        try:
            access_lists.drop(self.fd, is_dir=True)
        except OSError as error:
            self._report(self.path, "access list", error)

    def lstat(self, name: bytes) -> os.stat_result | None:
        """What is there under this name; None when nothing is."""
        path = self._at(name)
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise failure(error, path, "examine") from error

    def is_guarded(self, name: bytes) -> bool:
        """Whether what has this name must not go, or holds what must not."""
        info = self.lstat(name)
        return info is not None and self.target.guard.holds(self.target.place(self._at(name)), info)

    def is_within_guarded(self) -> bool:
        """Whether nothing in this directory may go."""
        return self.target.guard.is_within(self.target.place(self.path))

    def refuse_guarded(self, name: bytes, info: os.stat_result) -> None:
        """Raises InvalidRequest for a directory that must not go, or holds one."""
        if stat.S_ISDIR(info.st_mode):
            self.target.guard.refuse(self.target.place(self._at(name)), info)

    def names(self) -> list[bytes]:
        """All names in this directory, sorted."""
        try:
            if not is_readable(self.fd):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return sorted(name.encode(_ENCODING, _ON_ERROR) for name in os.listdir(self.fd))
        except OSError as error:
            raise failure(error, self.path, "list") from error

    def begin_file(self, name: bytes, size: int, data_extents: Extents | None) -> PendingFile:
        """A file under construction: all of it reads as zeros until written, and nobody sees it under its name."""
        path = self._at(name)
        if size < 0 or any(start < 0 or length < 0 or start + length > size for start, length in data_extents or ()):
            raise corrupted(path, "its size or extents cannot be")
        pending = PendingFile(
            self._create(path),
            (self.fd, name, path),
            size,
            self.target.attributes,
            partial(self._report, path),
            self.target.before_naming,
            beside=self._beside,
        )
        pending.allocate(data_extents)
        return pending

    def write_small(self, name: bytes, data: Bytes, node: Node) -> None:
        """A whole file at once; `data` is the joined extents when the node has some."""
        path = self._at(name)
        if node.extents is not None:
            self._write_islands(name, data, node)
            return
        if len(data) != node.size:
            raise corrupted(path, f"it has {len(data)} bytes instead of {node.size}")
        temporary, fd = self._create(path)
        try:
            try:
                if data and os.write(fd, data) != len(data):
                    write_all(fd, data, 0)
                self.target.attributes.apply(
                    fd, node, partial(self._report, path), is_own=self.is_own, beside=self._beside
                )
                if self.target.before_naming is not None:
                    self.target.before_naming(fd, self.fd, name)
            finally:
                os.close(fd)
            os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            discard(temporary, self.fd, partial(self._report, path))
            raise failure(error, path, "write") from error
        except BaseException:
            discard(temporary, self.fd, partial(self._report, path))
            raise

    def _write_islands(self, name: bytes, data: Bytes, node: Node) -> None:
        if len(data) != sum(length for _, length in node.extents or ()):
            raise corrupted(self._at(name), "its data does not fill its extents")
        with self.begin_file(name, node.size, node.extents) as pending:
            done = 0
            for start, length in node.extents or ():
                pending.write_at(start, data[done : done + length])
                done += length
            pending.commit(node)

    def make_symlink(self, name: bytes, node: Node) -> None:
        """A symlink, which may lead anywhere: it is data, and never followed here."""
        path = self._at(name)
        if not node.target or b"\0" in node.target:
            raise corrupted(path, "a symlink without a usable target")
        temporary = self.target.temporary_name()
        try:
            os.symlink(node.target, temporary, dir_fd=self.fd)
            self.target.attributes.apply_to_symlink(temporary, self.fd, node, partial(self._report, path))
            self._publish(temporary, name)
        except OSError as error:
            discard(temporary, self.fd, partial(self._report, path))
            raise failure(error, path, "create symlink") from error

    def make_special(self, name: bytes, node: Node) -> bool:
        """A FIFO or device node; False, with a problem, for what is not made here."""
        path = self._at(name)
        reason_unmade = self.target.unmade(node)
        if reason_unmade is not None:
            self.target.report(path, reason_unmade)
            return False
        temporary = self.target.temporary_name()
        try:
            os.mknod(temporary, stat.S_IFMT(node.mode) | 0o600, node.device or 0, dir_fd=self.fd)
            self._apply_unopened(temporary, node, path, self._beside)
            self._publish(temporary, name)
        except (OSError, OverflowError) as error:
            discard(temporary, self.fd, partial(self._report, path))
            # A container may not make device nodes, whoever it runs as; of a FIFO it says that the disk has none.
            if isinstance(error, PermissionError) and error.errno == errno.EPERM and not stat.S_ISFIFO(node.mode):
                self._report(path, "device node", error)
                return False
            raise failure(error, path, "create") from error
        return True

    def _apply_unopened(
        self, name: bytes, node: Node, path: bytes, beside: Beside, info: os.stat_result | None = None
    ) -> None:
        """Attributes for what must not be opened: a path descriptor names the inode, whatever the name means by now."""
        fd = os.open(name, PATH_ONLY, dir_fd=self.fd)
        try:
            found = os.fstat(fd)
            if stat.S_IFMT(found.st_mode) != stat.S_IFMT(node.mode) or not _is_meant(found, info):
                raise _replaced()
            item = b"/proc/self/fd/%d" % fd
            self.target.attributes.apply(item, node, partial(self._report, path), beside=beside)
        finally:
            os.close(fd)

    def looks_like(self, name: bytes, node: Node) -> bool:
        """Whether what is there has the attributes already that `apply` would give it."""
        path = self._at(name)
        try:
            return Facts.wanted(node, self.target.attributes).fit(Facts.of(self.fd, name))
        except OSError as error:
            raise failure(error, path, "examine") from error

    def apply(self, name: bytes, node: Node, info: os.stat_result | None = None) -> None:
        """Owner, mode, attributes and times for what is there already and holds what the node says.

        `info` says which item was compared with the node: no other one gets them.
        """
        path = self._at(name)
        try:
            if node.is_symlink:
                if not _is_meant(os.stat(name, dir_fd=self.fd, follow_symlinks=False), info):
                    raise _replaced()
                self.target.attributes.apply_to_symlink(name, self.fd, node, partial(self._report, path))
            else:
                self._apply_unopened(name, node, path, Beside.ANYTHING, info)
        except OSError as error:
            raise failure(error, path, "set attributes of") from error

    def link(self, name: bytes, other_dir: TargetDirectory, other_name: bytes) -> None:
        """Another name for a file that was restored; replaces what is there."""
        path = self._at(name)
        other_dir._at(other_name)
        try:
            os.link(other_name, name, src_dir_fd=other_dir.fd, dst_dir_fd=self.fd, follow_symlinks=False)
        except FileExistsError:
            self._link_over(name, other_dir, other_name, path)
        except OSError as error:
            raise failure(error, path, "link") from error

    def _link_over(self, name: bytes, other_dir: TargetDirectory, other_name: bytes, path: bytes) -> None:
        temporary = self.target.temporary_name()
        try:
            os.link(other_name, temporary, src_dir_fd=other_dir.fd, dst_dir_fd=self.fd, follow_symlinks=False)
            self._publish(temporary, name)
        except OSError as error:
            raise failure(error, path, "link") from error
        finally:
            discard(
                temporary, self.fd, partial(self._report, path)
            )  # rename leaves it when both are names of one inode

    def clear_leftovers(self, run: str = "") -> None:
        """Remove the temporary files of a run that is over; without `run` those of any."""
        for name in self.names() if is_readable(self.fd) else ():
            found = _LEFTOVER.fullmatch(name)
            if found is not None and run in ("", found[1].decode()):
                self.remove(name)

    def remove(self, name: bytes) -> None:
        """Whatever is there, directories with all they hold; nothing there is fine.

        Raises InvalidRequest for a directory that must not go, and RestoreFailed, before anything is removed, for one
        in which a file system is mounted.
        """
        path = self._at(name)
        try:
            if not unlink(self.fd, name):
                self._refuse_to_lose(name)
                self.refuse_mounts(name)
                self._remove_tree(name)
        except OSError as error:
            raise failure(error, path, "remove") from error

    def _refuse_to_lose(self, name: bytes) -> None:
        info = self.lstat(name)
        if info is not None:
            self.refuse_guarded(name, info)

    def refuse_mounts(self, name: bytes) -> None:
        """Raises RestoreFailed for a directory in which something is mounted, be it a part of its own file system."""
        path = self._at(name)
        try:
            mounted = mounted_within(self.target.place(path))
        except OSError as error:
            raise failure(error, path, "look for mounts in") from error
        if mounted:
            raise RestoreFailed(
                f"cannot remove {printable(path)}",
                cause=f"a file system is mounted at {printable(mounted[0])}",
                hint="unmount it, or leave that directory out with --exclude",
            )

    def _remove_tree(self, name: bytes) -> None:
        """Deepest first, with a stack instead of recursion: trees may be deeper than Python's own."""
        stack = [(self, iter([name]))]
        mount = mount_id(self.fd)
        try:
            while stack:
                directory, names = stack[-1]
                inner = next((n for n in names if not unlink(directory.fd, n)), None)
                if inner is not None:
                    below = _open_for_removal(directory, inner, mount)
                    stack.append((below, iter(below.names())))
                    continue
                stack.pop()
                if stack:
                    directory.close()
                    os.rmdir(directory.path.rpartition(b"/")[2], dir_fd=stack[-1][0].fd)
        finally:
            for directory, _ in stack[1:]:
                directory.close()

    def set_aside(self, name: bytes) -> bytes:
        """Rename what is there to `name.backstay-old` (or -old-2, …), never over anything; the new name.

        Raises InvalidRequest for a directory that must not go.
        """
        path = self._at(name)
        self._refuse_to_lose(name)
        for new in names_aside(name):
            try:
                rename_noreplace(self.fd, name, new)
            except FileExistsError:
                continue
            except OSError as error:
                raise failure(error, path, "rename") from error
            else:
                return new
        raise AssertionError("counting does not end")

    def put_back(self, aside: bytes, name: bytes) -> None:
        """Give back its name to what was set aside. Raises RestoreFailed where something has that name by now."""
        path = self._at(name)
        try:
            rename_noreplace(self.fd, aside, name)
        except OSError as error:
            raise failure(error, path, "put back") from error

    def finish(self, node: Node) -> None:
        """This directory's own attributes; the last thing done in it, since every change in it sets its time."""
        beside = Beside.NOTHING if self.is_new else Beside.ANYTHING
        item = self.fd if is_readable(self.fd) else b"/proc/self/fd/%d" % self.fd
        self.target.attributes.apply(item, node, partial(self._report, self.path), is_own=self.is_own, beside=beside)
        self.mode = None

    @property
    def _beside(self) -> Beside:
        """What an item has that was made in it just now."""
        return Beside.LISTS if self.hands_down else Beside.NOTHING

    def close(self) -> None:
        """Let go of it; may be called more than once."""
        fd, self.fd = self.fd, CLOSED
        if fd == CLOSED:
            return
        if self.mode is not None:
            tried(partial(self._report, self.path), "mode", os.fchmod, fd, self.mode)
        os.close(fd)

    def __del__(self) -> None:
        self.close()

    def _at(self, name: bytes) -> bytes:
        """The path of a name in this directory, after making sure that it is a name and nothing more."""
        if not name or len(name) > MAX_NAME or name in (b".", b"..") or b"/" in name or b"\0" in name:
            where = printable(self.path) or "the root"
            raise CorruptedBackup(
                f"the snapshot holds a name that cannot be restored, in {where}",
                cause=f"{printable(name[:MAX_NAME])!r} is not the name of a file",
            )
        return self.path + b"/" + name if self.path else name

    def _create(self, path: bytes) -> tuple[bytes, int]:
        while True:
            temporary = self.target.temporary_name()
            try:
                return temporary, os.open(temporary, _NEW_FILE, 0o600, dir_fd=self.fd)
            except FileExistsError:
                continue  # somebody guesses names; the next one is free
            except OSError as error:
                raise failure(error, path, "create") from error

    def _publish(self, temporary: bytes, name: bytes) -> None:
        os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def _report(self, path: bytes, what: str, error: Refusal) -> None:
        self.target.report(path, f"{what}: {reason(error)}")


def names_aside(name: bytes) -> Iterator[bytes]:
    """`name.backstay-old`, `name.backstay-old-2` and so on, without end; a long name is cut short for them."""
    for suffix in chain((ASIDE,), (b"%s-%d" % (ASIDE, number) for number in count(2))):
        yield name[: MAX_NAME - len(suffix)] + suffix


def _is_meant(found: os.stat_result, info: os.stat_result | None) -> bool:
    return info is None or os.path.samestat(found, info)


def _replaced() -> OSError:
    return OSError(errno.ESTALE, "it was replaced while it was restored")


def _open_for_removal(directory: TargetDirectory, name: bytes, mount: int) -> TargetDirectory:
    fd, mode = open_directory(directory.fd, name, writing=True)
    below = TargetDirectory(directory.target, fd, directory.path + b"/" + name, mode=mode)
    if mount_id(fd) != mount:
        below.close()
        raise OSError(errno.EBUSY, "something is mounted there")
    return below
