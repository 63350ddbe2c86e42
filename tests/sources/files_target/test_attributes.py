"""Owners, modes, attributes and rights come back, and grant nobody more than they did."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backstay.sources import attributes, files_target
from backstay.sources.existing import existing_equals
from backstay.sources.facts import Facts
from backstay.sources.files_target import FilesTarget
from backstay.sources.target_directory import TargetDirectory
from tests.sources.files_target.nodes import FOR_1001, MTIME, ROOT, file_node, give, needs_root, node, set_or_skip

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw, permitted

# Attributes


@needs_root
def test_owners_and_special_bits(root: TargetDirectory, out: Path) -> None:
    owned: dict[str, Any] = {"uid": 1234, "gid": 4321}
    root.write_small(b"f", b"x", file_node(b"x", mode=stat.S_IFREG | 0o6751, **owned))
    with root.begin_file(b"g", 1, None) as pending:
        pending.write_at(0, b"x")
        pending.commit(file_node(b"x", mode=stat.S_IFREG | 0o4711, **owned))
    root.make_symlink(b"l", node(mode=stat.S_IFLNK | 0o777, target=b"f", **owned))
    root.child(b"d", create=True).finish(node(mode=stat.S_IFDIR | 0o3775, **owned))
    for name, mode in (("f", 0o6751), ("g", 0o4711), ("l", 0o777), ("d", 0o3775)):
        info = os.lstat(out / name)
        assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (1234, 4321, mode)


@needs_root
def test_owners_go_by_name_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "_uid_of", {"ann": 2000}.get)
    monkeypatch.setattr(attributes, "_gid_of", {"staff": 3000}.get)
    for numeric, user, group, expected in (
        (False, "ann", "staff", (2000, 3000)),
        (False, "bob", "", (1001, 1002)),
        (True, "ann", "staff", (1001, 1002)),
    ):
        root = FilesTarget(tmp_path / "out", numeric_ids=numeric).open_root(create=True)
        root.write_small(b"f", b"", file_node(b"", uid=1001, gid=1002, user=user, group=group))
        info = (tmp_path / "out/f").stat()
        assert (info.st_uid, info.st_gid) == expected


@needs_root
@pytest.mark.parametrize("above", [0o700, 0o2755])
def test_an_owner_is_set_where_it_would_be_another(
    root: TargetDirectory, out: Path, monkeypatch: pytest.MonkeyPatch, above: int
) -> None:
    """A directory hands down its group when its mode says so; then nothing made in it is its maker's alone."""
    own, other = (os.geteuid(), os.getegid()), (1234, 4321)
    (out / "there").mkdir()
    os.chown(out, -1, 999)
    out.chmod(above)
    set_to: list[tuple[int, int]] = []
    chown = os.chown

    def noted(item: int, uid: int, gid: int) -> None:
        set_to.append((uid, gid))
        chown(item, uid, gid)

    monkeypatch.setattr(os, "chown", noted)
    for name in (b"new", b"there"):
        directory = root.child(name, create=True)
        for file, (uid, gid) in ((b"own", own), (b"other", other)):
            directory.write_small(file, b"", file_node(b"", uid=uid, gid=gid))
        directory.finish(node(mode=stat.S_IFDIR | 0o755))
        owners = [(info.st_uid, info.st_gid) for info in map(Path.stat, sorted((out / name.decode()).iterdir()))]
        assert owners == [other, own]
    needed = 2 if above == 0o700 else 0  # in the new directory, for the file and itself, when the maker's is right
    assert len(set_to) == 6 - needed


def test_special_rights_do_not_pass_to_another_owner(tmp_path: Path) -> None:
    root = FilesTarget(tmp_path / "out", owners=False).open_root(create=True)
    root.write_small(b"foreign", b"", file_node(b"", mode=stat.S_IFREG | 0o6755, uid=os.getuid() + 1))
    root.write_small(b"own", b"", file_node(b"", mode=stat.S_IFREG | 0o4755))
    assert [stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in ("foreign", "own")] == [0o755, 0o4755]


@needs_root
def test_owners_that_cannot_be_set_are_problems(
    target: FilesTarget, root: TargetDirectory, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", forbidden)
    root.write_small(b"f", b"", file_node(b"", mode=stat.S_IFREG | 0o4755, uid=5))
    assert [problem.message for problem in target.problems] == ["owner: operation not permitted"]
    assert stat.S_IMODE((out / "f").stat().st_mode) == 0o755


def test_extended_attributes(target: FilesTarget, root: TargetDirectory, out: Path) -> None:
    (out / "probe").touch()
    try:
        os.setxattr(out / "probe", "user.x", b"")
    except OSError:
        pytest.skip("no user attributes here")
    xattrs = ((b"user.a\xff", b""), (b"user.b", b"\0\xff" * 500))
    root.write_small(b"f", b"", file_node(b"", xattrs=xattrs, mode=stat.S_IFREG | 0o400))
    root.child(b"d", create=True).finish(node(mode=stat.S_IFDIR | 0o555, xattrs=xattrs))
    for name in ("f", "d"):
        assert {(os.fsencode(key), os.getxattr(out / name, key)) for key in os.listxattr(out / name)} == set(xattrs)
    assert not target.problems
    root.write_small(b"g", b"", file_node(b"", xattrs=((b"nonsense.x", b""), (b"a\0b", b""), (b"user.ok", b"1"))))
    assert os.getxattr(out / "g", "user.ok") == b"1"
    assert len(target.problems) == 2


@needs_root
def test_capabilities_and_access_lists(root: TargetDirectory, out: Path, target: FilesTarget) -> None:
    entries = ("01000600ffffffff", "02000400d2040000", "04000400ffffffff", "10000400ffffffff", "20000000ffffffff")
    acl = bytes.fromhex("02000000" + "".join(entries))
    (out / "probe").touch()
    try:
        os.setxattr(out / "probe", "security.capability", CAPABILITY)
        os.setxattr(out / "probe", "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("not supported here")
    mode = stat.S_IFREG | 0o4640
    xattrs = ((b"security.capability", CAPABILITY), (b"system.posix_acl_access", acl))
    root.write_small(b"f", b"x", file_node(b"x", uid=77, gid=88, mode=mode, xattrs=xattrs))
    assert (out / "f").stat().st_mode == mode
    assert {os.fsencode(key): os.getxattr(out / "f", key) for key in os.listxattr(out / "f")} == dict(xattrs)
    assert not target.problems


def test_nobody_gets_in_by_an_access_list_that_a_directory_hands_down(tmp_path: Path, target: FilesTarget) -> None:
    out = tmp_path / "out"
    (out / "there").mkdir(parents=True)
    for place in (out, out / "there"):
        give(place, "default")
    held = ((b"system.posix_acl_access", FOR_1001),)
    root = target.open_root(create=True)
    there = root.child(b"there", create=True)
    for directory in (root, root.child(b"new", create=True), there):
        directory.write_small(b"file", b"x", file_node(b"x", mode=stat.S_IFREG | 0o660))
        directory.write_small(b"kept", b"x", file_node(b"x", mode=stat.S_IFREG | 0o670, xattrs=held))
        with directory.begin_file(b"large", 1, None) as pending:
            pending.write_at(0, b"x")
            pending.commit(file_node(b"x", mode=stat.S_IFREG | 0o660))
        directory.make_special(b"fifo", node(mode=stat.S_IFIFO | 0o660))
        directory.child(b"below", create=True).finish(node(mode=stat.S_IFDIR | 0o770))
        place = out / os.fsdecode(directory.path)
        lists = {name: os.listxattr(place / name) for name in ("file", "large", "fifo", "below", "kept")}
        assert lists.pop("kept") == ["system.posix_acl_access"]
        assert lists == {name: [] for name in lists}
        modes = [stat.S_IMODE((place / name).stat().st_mode) for name in ("file", "kept", "large", "fifo", "below")]
        assert modes == [0o660, 0o670, 0o660, 0o660, 0o770]
    there.finish(node(mode=stat.S_IFDIR | 0o750))
    assert os.listxattr(out / "there") == []
    assert not target.problems


def test_a_directory_that_does_not_tell_may_hand_down_an_access_list(
    target: FilesTarget, root: TargetDirectory, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(out, "default")

    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "getxattr", broken)
        target.open_root(create=True).write_small(b"f", b"x", file_node(b"x", mode=stat.S_IFREG | 0o660))
    assert os.listxattr(out / "f") == []
    assert not target.problems


def test_what_is_there_loses_access_lists_that_the_snapshot_does_not_hold(root: TargetDirectory, out: Path) -> None:
    (out / "f").write_bytes(b"x")
    give(out / "f", "access")
    root.apply(b"f", file_node(b"x", mode=stat.S_IFREG | 0o660))
    assert os.listxattr(out / "f") == []
    assert stat.S_IMODE((out / "f").stat().st_mode) == 0o660


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_there_loses_attributes_that_the_snapshot_does_not_hold(
    target: FilesTarget, root: TargetDirectory, out: Path, kind: str
) -> None:
    item = out / "item"
    item.write_bytes(b"x") if kind == "file" else item.mkdir()
    there = {"user.gone": b"1", "user.kept": b"2", "user.changed": b"3"}
    if ROOT:
        there |= {"trusted.label": b"4", "security.label": b"5"}
        there |= {"security.capability": CAPABILITY} if kind == "file" else {}
    for name, value in there.items():
        set_or_skip(item, name, value)
    item.chmod(0o444 if kind == "file" else 0o555)
    held = ((b"user.changed", b"0"), (b"user.kept", b"2"), (b"user.new", b"\0"))
    if kind == "file":
        root.apply(b"item", file_node(b"x", mode=stat.S_IFREG | 0o440, xattrs=held))
    else:
        root.child(b"item", create=True).finish(node(mode=stat.S_IFDIR | 0o550, xattrs=held))
    labels = {(os.fsencode(name), value) for name, value in there.items() if name.endswith(".label")}
    assert {(os.fsencode(name), os.getxattr(item, name)) for name in os.listxattr(item)} == {*held, *labels}
    assert stat.S_IMODE(item.stat().st_mode) in (0o440, 0o550)
    assert item.stat().st_mtime_ns == MTIME
    assert not target.problems


@needs_root
def test_a_program_that_is_there_keeps_its_capabilities_when_its_owner_changes(
    root: TargetDirectory, out: Path, target: FilesTarget
) -> None:
    held = ((b"security.capability", CAPABILITY),)
    wanted = file_node(b"x", uid=1234, xattrs=held)
    for way in ("apply", "facts"):
        (out / way).write_bytes(b"x")
        set_or_skip(out / way, "security.capability", CAPABILITY)
        if way == "apply":
            root.apply(b"apply", wanted)
        else:
            facts = Facts.wanted(wanted, target.attributes)
            facts.put(root.fd, b"facts", refuse, all_of_them=False)
        assert (out / way).stat().st_uid == 1234
        assert os.getxattr(out / way, "security.capability") == CAPABILITY


@needs_root
def test_capabilities_that_the_snapshot_does_not_hold_go_without_a_change_of_owner(tmp_path: Path) -> None:
    target = FilesTarget(tmp_path / "out", owners=False)
    program = tmp_path / "out/program"
    root = target.open_root(create=True)
    wanted = file_node(b"x")
    for way in ("apply", "facts"):
        program.write_bytes(b"x")
        set_or_skip(program, "security.capability", CAPABILITY)
        if way == "apply":
            root.apply(b"program", wanted)
        else:
            Facts.wanted(wanted, target.attributes).put(root.fd, b"program", refuse, all_of_them=False)
        assert os.listxattr(program) == []
    assert not target.problems


def refuse(what: str, error: Exception) -> None:
    pytest.fail(f"{what}: {error}")


# What is there already


def test_existing_content(root: TargetDirectory, out: Path) -> None:
    (out / "f").write_bytes(b"data")
    (out / "d").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fsencode(out / "s"))
    same, other, shorter = file_node(b"data"), file_node(b"atad"), file_node(b"dat")
    assert existing_equals(root, b"f", same)
    assert not existing_equals(root, b"f", other)
    assert existing_equals(root, b"f", other, read_sha256=False)
    assert not existing_equals(root, b"f", shorter, read_sha256=False)
    assert not existing_equals(root, b"f", node(size=4)), "no digest proves nothing"
    assert not existing_equals(root, b"missing", same)
    assert not existing_equals(root, b"d", same)
    assert not existing_equals(root, b"f", node(mode=stat.S_IFDIR))
    assert existing_equals(root, b"d", node(mode=stat.S_IFDIR | 0o700))
    assert existing_equals(root, b"s", node(mode=stat.S_IFSOCK))
    (out / "l").symlink_to("f")
    assert not existing_equals(root, b"l", same), "a symlink to the same bytes is something else"


_AS_NOBODY = """
import os, stat, sys
from pathlib import Path
from backstay.errors import BackstayError
from backstay.repository.nodes import Node
from backstay.sources.facts import Facts
from backstay.sources.files_target import FilesTarget
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
place = Path(sys.argv[1])
for where in ("closed", "closed/x"):
    try:
        FilesTarget(place / where).check()
    except BackstayError as error:
        print(error.code)
target = FilesTarget(place / "mine/out")
target.check()
root = target.open_root(create=True)
made = lambda mode, **fields: Node(b"n", mode, 0, 0, "root", "root", 0, 1, **fields)
for mode in (0o500, 0o000):
    for _ in range(2):
        child = root.child(b"d", create=True)
        child.write_small(b"f", b"", made(stat.S_IFREG | 0o4400))
        child.finish(made(stat.S_IFDIR | mode))
print(oct((place / "mine/out/d").stat().st_mode))
print(root.make_special(b"dev", made(stat.S_IFCHR | 0o600, device=259)))
print(root.make_special(b"fifo", made(stat.S_IFIFO | 0o600)))
opened = root.child(b"d", create=False)
print(opened.names())
opened.close()
print(oct((place / "mine/out/d").stat().st_mode))
root.write_small(b"f", b"", made(stat.S_IFREG | 0o400))
noted = made(stat.S_IFREG | 0o400, xattrs=((b"user.note", b"1"),))
root.apply(b"f", noted)
Facts.wanted(made(stat.S_IFREG | 0o400), target.attributes).put(root.fd, b"f", target.report, all_of_them=False)
root.apply(b"f", noted)
print(os.getxattr(place / "mine/out/f", "user.note"), oct((place / "mine/out/f").stat().st_mode))
root.remove(b"f")
root.remove(b"d")
print(root.names(), [p.message for p in target.problems])
"""


@needs_root
def test_without_rights() -> None:
    place = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp") / f"backstay-nobody-{os.getpid()}"
    place.mkdir(mode=0o755)
    try:
        (place / "closed").mkdir(mode=0o755)
        (place / "mine").mkdir()
        set_or_skip(place / "mine", "user.note", b"")
        os.chown(place / "mine", 65534, 65534)
        packages = os.pathsep.join([str(Path(files_target.__file__).parents[2]), *filter(None, sys.path)])
        run = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, place],
            capture_output=True,
            text=True,
            check=False,
            env={"PYTHONPATH": packages},
        )
        assert run.stdout.splitlines() == [
            "RestoreFailed",
            "RestoreFailed",
            "0o40000",
            "False",
            "True",
            "[b'f']",
            "0o40000",
            "b'1' 0o100400",
            "[b'fifo'] ['device nodes are restored by root only']",
        ], run.stderr
    finally:
        subprocess.run(["rm", "-rf", place], check=True)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_an_access_list_that_is_handed_down_and_cannot_be_removed_is_told(
    target: FilesTarget, out: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    out.mkdir()
    give(out, "default")
    root = target.open_root(create=True)

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(os, "removexattr", refused)
        if kind == "file":
            root.write_small(b"item", b"x", file_node(b"x", mode=stat.S_IFREG | 0o660))
        else:
            root.child(b"item", create=True).finish(node(mode=stat.S_IFDIR | 0o770))
    assert "system.posix_acl_access" in os.listxattr(out / "item")
    assert any("item" in str(problem) and "access list" in str(problem) for problem in target.problems)
