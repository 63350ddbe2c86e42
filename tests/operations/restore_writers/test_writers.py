"""Files are restored the same by this process and by others, and whatever becomes of those."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from backstay.codec.digest import ChunkIds
from backstay.core import helper_process
from backstay.core.clock import SystemClock
from backstay.core.events import Event
from backstay.errors import InsufficientSpace
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.restore import writers as restore_writers
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.operations.restore.write_process import Piece, SmallFile, WriteProcess
from backstay.operations.restore.writers import Portion, Writers
from backstay.repository.blobs import writer as blob_writer
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.nodes import Node
from backstay.repository.packs.blobs import BlobKeys, StoredBlob
from backstay.repository.repository import Repository
from backstay.sources.files_target import FilesTarget
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.storage.local import LocalStorage
from tests.operations.restore_writers.world import DIRECTORIES, FILES_EACH, SECRET, facts, restored, warnings
from tests.sources.files_target.nodes import give, needs_root


@pytest.fixture(params=["here", "elsewhere"])
def packs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Packs as files that the processes open themselves, or as what a store sends."""
    if request.param == "elsewhere":
        monkeypatch.setattr(BlobReader, "lying_blob", lambda *_: None)
    return str(request.param)


@pytest.mark.usefixtures("packs")
def test_processes_restore_everything(
    repository: Repository, tree: Path, tmp_path: Path, started: list[WriteProcess]
) -> None:
    result = restored(repository, tmp_path / "out")
    assert len(started) == 2
    assert result.errors == ()
    assert result.problems == ()
    assert result.files == DIRECTORIES * FILES_EACH + 6
    assert facts(tmp_path / "out" / tree.relative_to("/")) == facts(tree)


@pytest.mark.usefixtures("packs", "started")
def test_files_get_no_access_list_that_directories_hand_down(
    repository: Repository, tree: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    there = out / tree.relative_to("/") / "d7"
    there.mkdir(parents=True)
    for place in (out, there):
        give(place, "default")
    restored(repository, out)
    assert facts(out / tree.relative_to("/")) == facts(tree)


@needs_root
@pytest.mark.usefixtures("packs", "started")
def test_files_get_their_groups_in_directories_that_hand_down_another(
    repository: Repository, tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    os.chown(tmp_path / "out", -1, 4321)
    (tmp_path / "out").chmod(0o2755)
    restored(repository, tmp_path / "out")
    assert facts(tmp_path / "out" / tree.relative_to("/")) == facts(tree)


@pytest.mark.usefixtures("packs", "started")
def test_small_files_in_many_directories_are_all_written_by_processes(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie in one blob, and a request takes no more than 250 descriptors."""
    place = tmp_path / "many"
    for number in range(300):
        inside = place / f"d{number:03}"
        inside.mkdir(parents=True)
        for name in ("a", "b", "c", "d"):
            (inside / name).write_bytes(b"%d %s" % (number, name.encode()))
    source = FilesystemSource([bytes(place)], filters=Filters([]), clock=SystemClock())
    run_backup(repository, source, BackupOptions(host="host"))
    here: list[Portion] = []
    monkeypatch.setattr(Writers, "_write_here", lambda _, portion: here.append(portion))
    restored(repository, tmp_path / "out")
    assert here == []
    assert facts(tmp_path / "out" / place.relative_to("/")) == facts(place)


def test_few_files_need_no_process(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WriteProcess, "__init__", lambda *_: pytest.fail("a process was started"))
    assert restored(repository, tmp_path / "out").errors == ()


@pytest.mark.parametrize("requests", [0, 1])
def test_a_process_that_is_killed_is_done_without(
    repository: Repository,
    tree: Path,
    tmp_path: Path,
    started: list[WriteProcess],
    requests: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when it leaves a file half written, under its temporary name."""
    request = WriteProcess.request
    made: list[None] = []
    left: list[Path] = []

    def killed(self: WriteProcess, files: list[SmallFile], *blob: Any, **more: Any) -> bool:
        if len(made) == requests:
            os.kill(self.pid, signal.SIGKILL)
            left.append(tmp_path / "out" / os.fsdecode(files[0].directory.path) / f".backstay-{self.run}-ff")
            left[0].write_bytes(b"half")
        made.append(None)
        return request(self, files, *blob, **more)

    monkeypatch.setattr(WriteProcess, "request", killed)
    told: list[Event] = []
    result = restored(repository, tmp_path / "out", told)
    assert result.errors == ()
    assert not left[0].exists()
    assert facts(tmp_path / "out" / tree.relative_to("/")) == facts(tree)
    assert [message for message in warnings(told) if "gone" in message] == warnings(told) != []


def test_a_process_that_dies_while_there_is_no_room_for_requests_is_done_without(
    repository: Repository,
    tree: Path,
    tmp_path: Path,
    started: list[WriteProcess],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of its requests are under way when it is found to be gone."""
    made: list[None] = []
    request = WriteProcess.request

    def stopped(self: WriteProcess, files: list[SmallFile], *blob: Any, **more: Any) -> bool:
        if not made:
            for process in started:
                os.kill(process.pid, signal.SIGSTOP)
        made.append(None)
        return request(self, files, *blob, **more)

    def full(self: WriteProcess) -> bool:
        if len(made) < 6:
            return True
        for process in started:
            with suppress(ProcessLookupError):  # waited for by now
                os.kill(process.pid, signal.SIGKILL)
        return False

    monkeypatch.setattr(blob_writer, "BUNDLE_TARGET", 20_000)
    monkeypatch.setattr(WriteProcess, "request", stopped)
    monkeypatch.setattr(WriteProcess, "has_room", property(full))
    source = FilesystemSource([bytes(tree)], filters=Filters([]), clock=SystemClock())
    with Repository.create(LocalStorage(tmp_path / "other"), SECRET) as other:
        run_backup(other, source, BackupOptions(host="host"))
        assert restored(other, tmp_path / "out").errors == ()
    assert len(made) >= 6
    assert facts(tmp_path / "out" / tree.relative_to("/")) == facts(tree)


def test_processes_that_cannot_start_are_done_without(
    repository: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore_writers, "MANY", 0)
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    told: list[Event] = []
    assert restored(repository, tmp_path / "out", told).errors == ()
    assert facts(tmp_path / "out" / tree.relative_to("/")) == facts(tree)
    assert len(warnings(told)) == 1


def test_bytes_of_another_chunk_are_never_written(
    repository: Repository, tree: Path, tmp_path: Path, started: list[WriteProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the index were wrong: the file is fetched again."""
    request = WriteProcess.request

    def spoilt(self: WriteProcess, files: list[SmallFile], *blob: Any, **more: Any) -> bool:
        return request(self, [f._replace(start=f.start + 1) for f in files], *blob, **more)

    monkeypatch.setattr(WriteProcess, "request", spoilt)
    assert restored(repository, tmp_path / "out").errors == ()
    assert facts(tmp_path / "out" / tree.relative_to("/")) == facts(tree)
    assert started


def test_a_blob_that_was_damaged_on_its_way_is_fetched_again(
    repository: Repository,
    tree: Path,
    tmp_path: Path,
    started: list[WriteProcess],
    packs: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = WriteProcess.request
    nothing = os.open(os.devnull, os.O_RDONLY)  # a pack that was cut short

    def spoilt(
        self: WriteProcess,
        files: list[SmallFile],
        blob: StoredBlob | None = None,
        stored: bytes = b"",
        *,
        pack: int | None = None,
        **more: Any,
    ) -> bool:
        assert blob is None or (pack is None) == (packs == "elsewhere")
        return request(self, files, blob, bytes(len(stored)), pack=pack and nothing, **more)

    monkeypatch.setattr(WriteProcess, "request", spoilt)
    assert restored(repository, tmp_path / "out").errors == ()
    assert facts(tmp_path / "out" / tree.relative_to("/")) == facts(tree)
    assert started
    os.close(nothing)


@pytest.mark.usefixtures("started")
def test_a_piece_that_cannot_be_written_fails_its_file_alone(
    repository: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told once, however many pieces fail; nothing of the file stays."""
    request = WriteProcess.request
    closed = os.open(tmp_path, os.O_RDONLY)  # not to be written to

    def spoilt(self: WriteProcess, *files: Any, pieces: list[Piece] = [], **more: Any) -> bool:  # noqa: B006 - not kept
        spoilt = [piece._replace(fd=closed) if piece.path.endswith(b"many-chunks") else piece for piece in pieces]
        return request(self, *files, pieces=spoilt, **more)

    monkeypatch.setattr(WriteProcess, "request", spoilt)
    options = RestoreOptions()
    newest = repository.snapshots.live()[-1]
    result = run_restore(repository, newest, tmp_path / "out", options)
    os.close(closed)
    assert [item.path.rpartition("/")[2] for item in result.errors] == ["many-chunks"]
    expected = facts(tree)
    del expected["d5/many-chunks"]
    assert facts(tmp_path / "out" / tree.relative_to("/")) == expected


def test_what_a_process_cannot_write_is_told_by_name(
    repository: Repository, tree: Path, tmp_path: Path, started: list[WriteProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is too long, and an owner that this system does not take, as another system's snapshot may hold."""
    request = WriteProcess.request

    def spoilt(self: WriteProcess, files: list[SmallFile], *blob: Any, **more: Any) -> bool:
        for file in files:
            if file.node.name == b"f3":
                file.node.name = b"n" * 300
            if file.node.name == b"f4":
                file.node.user, file.node.uid = "", 1 << 40
        return request(self, files, *blob, **more)

    monkeypatch.setattr(WriteProcess, "request", spoilt)
    result = restored(repository, tmp_path / "out")
    assert {item.path.rpartition("/")[2] for item in result.errors} >= {"f3"}
    assert len([item for item in result.errors if item.path.endswith("/f3")]) >= DIRECTORIES
    assert len({problem.path for problem in result.problems}) == (DIRECTORIES if os.geteuid() == 0 else 0)
    assert started


def test_a_full_target_ends_the_restore_as_without_processes(
    repository: Repository, tmp_path: Path, started: list[WriteProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = "import sys, resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400)); import signal; "
    ignored = "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); import backstay.sources.restore_errors as r; "
    as_full = "import errno; r._FULL = frozenset({errno.EFBIG}); "
    monkeypatch.setattr(
        helper_process,
        "_START",
        "import sys; sys.path[:] = sys.argv[6:]; " + start + ignored + as_full
        + "from backstay.core.helper_process import main; main()",
    )  # fmt: skip
    with pytest.raises(InsufficientSpace):
        restored(repository, tmp_path / "out")
    assert started
    assert not list((tmp_path / "out").rglob(".backstay-*"))


def test_a_process_closes_what_it_was_lent(tmp_path: Path, started: list[WriteProcess]) -> None:
    target = FilesTarget(tmp_path / "out")
    root = target.open_root(create=True)
    (tmp_path / "out" / "twin").write_bytes(b"x")
    keys = BlobKeys({}, b"k" * 32)
    process = WriteProcess(target, keys)
    node = Node(b"name", 0o100644, os.geteuid(), os.getegid(), "", "", 1, 1)
    for _ in range(50):
        file = SmallFile(root, node, b"/name", ChunkIds(keys.ids).of(b"x"), 0, 1, b"twin")
        assert process.request([file])
        with process.written() as written:
            assert written.failed == []
    assert len(os.listdir(f"/proc/{process.pid}/fd")) < 12
    process.close()
    root.close()
    assert started


@pytest.mark.parametrize(("refused", "gone"), [(3, 0), (1 << 30, 2)])
def test_open_files_that_the_kernel_has_no_room_for_are_sent_a_moment_later(
    repository: Repository,
    tree: Path,
    tmp_path: Path,
    started: list[WriteProcess],
    monkeypatch: pytest.MonkeyPatch,
    refused: int,
    gone: int,
) -> None:
    """A process that does not take them for long counts as gone."""
    send, refusals = socket.send_fds, [0]

    def crowded(to: socket.socket, message: list[bytes], files: list[int]) -> int:
        if files and refusals[0] < refused:
            refusals[0] += 1
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        return send(to, message, files)

    monkeypatch.setattr(helper_process, "_CROWDED_S", 0.05 if gone else 60)
    monkeypatch.setattr(socket, "send_fds", crowded)
    told: list[Event] = []
    assert restored(repository, tmp_path / "out", told).errors == ()
    assert facts(tmp_path / "out" / tree.relative_to("/")) == facts(tree)
    assert len(warnings(told)) == gone
    assert len(started) == 2
    assert refusals[0] >= 3
