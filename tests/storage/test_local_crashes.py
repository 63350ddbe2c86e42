"""A local store that is killed, or loses power: what was acknowledged is there, and nothing half."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from backstay.errors import (
    BackstayError,
    ObjectExists,
    ObjectNotFound,
    StorageUnavailable,
)
from backstay.storage.filesystem_seam import Filesystem
from backstay.storage.local import LocalStorage
from backstay.testing import CrashPoint, FaultyFilesystem, PowerCutFilesystem
from tests.descriptors import open_files
from tests.storage.local_stores import DATA, MORE, NAME, NoLinks


def _temporaries(root: Path) -> list[Path]:
    return [*root.rglob(".tmp-*")]


# --- crashes ---


@pytest.mark.crash
@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("old", [None, MORE], ids=["new", "overwrite"])
def test_a_store_that_is_killed_leaves_the_object_whole_or_as_before(
    old: bytes | None, after: bool, links: bool, tmp_path: Path
) -> None:
    outcomes = set()
    for at in range(1, 100):
        root = tmp_path / str(at)
        if old is not None:
            LocalStorage(root).store(NAME, old)
        inner = Filesystem() if links else NoLinks()
        filesystem = FaultyFilesystem(at=at, fault=CrashPoint, after=after, write_limit=5000, inner=inner)
        try:
            LocalStorage(root, filesystem=filesystem).store(NAME, DATA, overwrite=old is not None)
        except CrashPoint:
            outcomes.add(_object(root))
        else:
            break
        assert filesystem.crashed
        LocalStorage(root).store(NAME, DATA, overwrite=True)
        assert LocalStorage(root).retrieve(NAME) == DATA
    assert at > 5
    assert outcomes == {old, DATA}


def _object(root: Path) -> bytes | None:
    if not root.exists():
        return None
    store = LocalStorage(root)
    listed = [info.name for info in store.list()]
    assert listed == ([NAME] if store.exists(NAME) else [])
    return store.retrieve(NAME) if listed else None


@pytest.mark.crash
@pytest.mark.parametrize("old", [None, MORE], ids=["new", "overwrite"])
@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_power_cut_takes_nothing_that_was_acknowledged(old: bytes | None, links: bool, tmp_path: Path) -> None:
    for at in range(1, 100):
        root, attic = tmp_path / str(at) / "r", tmp_path / f"attic{at}"
        attic.mkdir()
        root.parent.mkdir()
        power = PowerCutFilesystem(attic)
        if not links:
            power.link = NoLinks().link  # type: ignore[method-assign]
        LocalStorage(root, filesystem=power).store("acknowledged/earlier", DATA)
        if old is not None:
            LocalStorage(root, filesystem=power).store(NAME, old)
        filesystem = FaultyFilesystem(at=at, fault=CrashPoint, write_limit=5000, inner=power)
        acknowledged = False
        try:
            LocalStorage(root, filesystem=filesystem).store(NAME, DATA, overwrite=old is not None)
            acknowledged = True
        except CrashPoint:
            pass
        power.cut(root)
        store = LocalStorage(root)
        assert store.retrieve("acknowledged/earlier") == DATA
        found = store.retrieve(NAME) if store.exists(NAME) else None
        assert found == DATA if acknowledged else found in (old, DATA), at
        if acknowledged:
            break
    else:
        pytest.fail("no store was acknowledged")


@pytest.mark.crash
def test_whoever_is_told_that_an_object_exists_may_rely_on_it(tmp_path: Path) -> None:
    root, attic = tmp_path / "r", tmp_path / "attic"
    attic.mkdir()
    power = PowerCutFilesystem(attic)
    LocalStorage(root, filesystem=power).store("packs/ab/other", DATA)
    # The first writer dies between the link and the sync of the directory.
    first = FaultyFilesystem(at=1, fault=CrashPoint, after=True, operations=frozenset({"link"}), inner=power)
    with pytest.raises(CrashPoint):
        LocalStorage(root, filesystem=first).store(NAME, DATA)
    with pytest.raises(ObjectExists):
        LocalStorage(root, filesystem=power).store(NAME, DATA)
    power.cut(root)
    assert LocalStorage(root).retrieve(NAME) == DATA


@pytest.mark.crash
def test_a_deleted_object_stays_deleted_after_a_power_cut(tmp_path: Path) -> None:
    root, attic = tmp_path / "r", tmp_path / "attic"
    attic.mkdir()
    power = PowerCutFilesystem(attic)
    store = LocalStorage(root, filesystem=power)
    store.store(NAME, DATA)
    store.delete(NAME)
    power.cut(root)
    assert not LocalStorage(root).exists(NAME)


@pytest.mark.crash
def test_objects_that_were_deleted_together_stay_deleted_after_a_power_cut(tmp_path: Path) -> None:
    root, attic = tmp_path / "r", tmp_path / "attic"
    attic.mkdir()
    power = PowerCutFilesystem(attic)
    names = ["wal/a/1", "wal/a/2", "wal/b/1", "wal/a/3"]
    for name in names:
        LocalStorage(root, filesystem=power).store(name, DATA)
    counted = FaultyFilesystem(at=10**9, operations=frozenset({"fsync"}), inner=power)
    LocalStorage(root, filesystem=counted).delete_all(names)
    assert len([path for operation, path in counted.calls if operation == "fsync"]) == 2, "once for each directory"
    power.cut(root)
    assert list(LocalStorage(root).list()) == []


@pytest.mark.crash
@pytest.mark.parametrize("broken", ["file", "directory"])
def test_the_power_cut_finds_a_missing_sync(broken: str, tmp_path: Path) -> None:
    class Forgetful(PowerCutFilesystem):
        def fsync(self, descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode) != (broken == "directory"):
                super().fsync(descriptor)

    (tmp_path / "attic").mkdir()
    (tmp_path / "r").mkdir()
    power = Forgetful(tmp_path / "attic")
    LocalStorage(tmp_path / "r", filesystem=power).store("a", DATA)
    power.cut(tmp_path / "r")
    store = LocalStorage(tmp_path / "r")
    assert not store.exists("a") if broken == "directory" else store.retrieve("a") == b""


# --- temporary files ---


def _leave(root: Path, pid: int, age_s: int) -> Path:
    path = root / "packs" / "ab" / f".tmp-{pid}-0123{age_s:04.0f}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    os.utime(path, (0, path.stat().st_mtime - age_s))
    return path


def test_sweeping_takes_old_files_of_dead_processes_only(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    store = LocalStorage(tmp_path)
    store.store(NAME, DATA)
    stale = _leave(tmp_path, ended.pid, 7200)
    young = _leave(tmp_path, ended.pid, 60)
    alive = _leave(tmp_path, os.getpid(), 7200)
    init = _leave(tmp_path, 1, 7200)
    odd = tmp_path / ".tmp-notours"
    odd.write_bytes(b"")
    os.utime(odd, ns=(0, 0))
    assert store.sweep_temporaries(3600) == 1
    assert not stale.exists()
    assert all(path.exists() for path in (young, alive, init, odd))
    assert store.sweep_temporaries(30) == 1
    assert not young.exists()
    assert store.retrieve(NAME) == DATA


def test_a_crashed_store_is_swept(tmp_path: Path) -> None:
    script = (
        "import os, sys; from backstay.storage.local import LocalStorage; "
        "from backstay.storage.filesystem_seam import Filesystem\n"
        "class Dying(Filesystem):\n"
        "    def fsync(self, descriptor): os._exit(9)\n"
        "LocalStorage(sys.argv[1], filesystem=Dying()).store('object', b'x' * 1000)\n"
    )
    source = Path(__file__).parents[2] / "src"
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env={"PYTHONPATH": str(source)})
    assert died.returncode == 9
    assert len(_temporaries(tmp_path)) == 1
    store = LocalStorage(tmp_path)
    assert not [*store.list()]
    assert store.sweep_temporaries(3600) == 0
    assert store.sweep_temporaries(0) == 1
    assert not _temporaries(tmp_path)


def test_nothing_stays_open(tmp_path: Path) -> None:
    store = LocalStorage(tmp_path)
    store.store("a", DATA)
    before = open_files()
    for _ in range(5):
        store.store(NAME, DATA, overwrite=True)
        store.retrieve("a")
        next(store.list())
        with pytest.raises(ObjectNotFound):
            store.retrieve("b")
        with pytest.raises(StorageUnavailable):
            store.retrieve("a", start=10**9)
        with pytest.raises(ObjectExists):
            store.store("a", MORE)
    assert open_files() <= before


def test_threads_make_the_same_directories(tmp_path: Path) -> None:
    store = LocalStorage(tmp_path / "r")
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            store.store(f"a/b/c/d/{number}", DATA)
        except BackstayError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len([*store.list("a/b/c/d/")]) == 8
