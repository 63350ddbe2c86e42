"""Capturing gives the same whether threads or processes read, and whatever becomes of the processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from backstay.codec.chunker import FILES, ContentDefinedChunker
from backstay.codec.digest import ChunkIds
from backstay.core import helper_process
from backstay.core.clock import SystemClock
from backstay.operations.backup import capture as capture_module
from backstay.operations.backup import capture_process
from backstay.operations.backup.batches import WHOLE
from backstay.operations.backup.capture import Capturing
from backstay.operations.backup.capture_process import CaptureProcess
from backstay.operations.backup.scan import Left, Scan, Step, Take
from backstay.repository.nodes import Node
from backstay.sources.filesystem import FilesystemSource, OpenDirectory
from backstay.sources.filters import Filters
from backstay.sources.source import NEVER_SAME, Stat

IDS, CHUNKER = ChunkIds(b"k" * 32), ContentDefinedChunker(FILES, 7)
DIRECTORIES, FILES_EACH = 40, 30
# A process that has room for requests, but not for the answers.
SHORT = (
    "import sys; sys.path[:] = sys.argv[6:]; import backstay.operations.backup.capture_process as capture; "
    "capture.ANSWER = 2000; from backstay.core.helper_process import main; main()"
)
# A process to which every file is too young.
YOUNG = (
    "import sys; sys.path[:] = sys.argv[6:]; import backstay.sources.metadata as metadata; "
    "metadata.FINE = metadata.COARSE = 10**18; from backstay.core.helper_process import main; main()"
)


class Found(NamedTuple):
    """What was captured of one entry."""

    stat: Stat | None
    node: Node | None
    chunks: list[tuple[bytes, bytes]] | None
    is_stream: bool
    error: str | None


class Run(NamedTuple):
    """One walk with everything captured."""

    found: dict[bytes, Found]
    problems: list[tuple[bytes, str]]
    warnings: list[str]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    rng = random.Random(3)
    place = tmp_path / "tree"
    for directory in range(DIRECTORIES):
        inside = place / f"d{directory}"
        inside.mkdir(parents=True)
        for number in range(FILES_EACH):
            (inside / f"f{number}").write_bytes(rng.randbytes(rng.randrange(4000)))
    last = place / f"d{DIRECTORIES - 1}"
    (last / "medium").write_bytes(rng.randbytes(900_000))
    (last / "largest in one go").write_bytes(rng.randbytes(WHOLE))
    (last / "stream").write_bytes(rng.randbytes(WHOLE + 1))
    (last / "empty").touch()
    os.mkfifo(last / "fifo")
    (last / "link").symlink_to("nowhere")
    (last / "name").hardlink_to(last / "medium")
    Path(os.fsdecode(bytes(last) + b"/\xff\xfe")).write_bytes(b"no text")
    with (last / "sparse").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"island")
    return place


def _nothing(number: int, take: Take) -> None:
    """During an ordinary run."""


def capture(
    tree: Path,
    *,
    readers: int = 1,
    listed: Callable[[int, Take], None] = _nothing,
    during: Callable[[int, Take], None] = _nothing,
) -> Run:
    source = FilesystemSource([bytes(tree)], filters=Filters([]), clock=SystemClock())
    problems: list[tuple[bytes, str]] = []
    warnings: list[str] = []
    capturing = Capturing(
        IDS, CHUNKER, readers=readers, lacks=lambda *problem: problems.append(problem), warn=warnings.append
    )

    def steps() -> Iterator[Step]:
        for step in Scan(source, None, None).steps():
            if isinstance(step, Take):
                listed(0, step)
            yield step

    found: dict[bytes, Found] = {}
    for number, batch in enumerate(capturing.run(steps())):
        for step in batch.steps:
            if isinstance(step, Take):
                found[step.visit.path_of(step.entry[0])] = _found(step)
                during(number, step)
            elif isinstance(step, Left):
                step.visit.directory.close()
    found = {path: entry for path, entry in found.items() if path.startswith(bytes(tree))}
    return Run(found, problems + [(p.path, p.message) for p in source.problems], warnings)


def _found(take: Take) -> Found:
    captured = take.capture
    if captured is None:
        return Found(None, None, None, False, str(take.error))
    if captured.stream is not None:
        captured.stream.abandon()
    chunks = None if take.chunks is None else [(chunk, bytes(data)) for chunk, data in take.chunks]
    # Whether a file is too young for its times to be trusted depends on when it is read.
    stat = (*captured.stat[:4], NEVER_SAME, captured.stat[5])
    return Found(stat, captured.node, chunks, captured.stream is not None, None)


@pytest.fixture
def expected(tree: Path, monkeypatch: pytest.MonkeyPatch) -> dict[bytes, Found]:
    """What threads of this process find."""
    with monkeypatch.context() as here:
        here.setattr(helper_process, "is_supported", lambda: False)
        return capture(tree).found


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[CaptureProcess]]:
    """The processes that a test started; all of them must be gone in the end."""
    processes: list[CaptureProcess] = []

    class Noted(CaptureProcess):
        def __init__(self, settings: capture_process.Settings) -> None:
            super().__init__(settings)
            processes.append(self)

        def is_ready(self) -> bool:
            while not super().is_ready():  # else threads are done with a small tree before
                time.sleep(0.001)
            return True

    monkeypatch.setattr(capture_module, "CaptureProcess", Noted)
    yield processes
    assert all(process.is_gone() for process in processes)


@pytest.mark.parametrize("readers", [1, 3])
def test_processes_find_what_threads_find(
    tree: Path, expected: dict[bytes, Found], started: list[CaptureProcess], readers: int
) -> None:
    run = capture(tree, readers=readers)
    assert len(started) == readers
    assert len(run.found) > DIRECTORIES * FILES_EACH
    assert run.found == expected
    assert run.problems == []
    assert run.warnings == []
    assert run.found[bytes(tree) + b"/d39/stream"].is_stream
    assert run.found[bytes(tree) + b"/d39/\xff\xfe"].chunks == [(IDS.of(b"no text"), b"no text")]


def test_few_files_need_no_process(tmp_path: Path, started: list[CaptureProcess]) -> None:
    (tmp_path / "file").write_bytes(b"x")
    capture(tmp_path)
    assert started == []


@pytest.mark.parametrize("at", [5, 8])
def test_a_process_that_is_killed_is_done_without(
    tree: Path, expected: dict[bytes, Found], started: list[CaptureProcess], at: int
) -> None:
    def kill(number: int, take: Take) -> None:
        if number == at:
            for process in started:
                os.kill(process.pid, signal.SIGKILL)

    run = capture(tree, during=kill)
    assert run.found == expected
    assert len(run.warnings) == 1
    assert "gone" in run.warnings[0]


def test_a_process_that_cannot_start_is_done_without(
    tree: Path, expected: dict[bytes, Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    run = capture(tree)
    assert run.found == expected
    assert len(run.warnings) == 1


def test_a_process_that_dies_at_its_start_is_done_without(
    tree: Path, expected: dict[bytes, Found], started: list[CaptureProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper_process, "_START", "raise SystemExit(3)")
    run = capture(tree)
    assert run.found == expected
    assert len(run.warnings) == 1
    assert len(started) <= 1  # none, if it was dead before it got its settings


@pytest.mark.parametrize("helped", [False, True], ids=["threads", "processes"])
def test_few_directories_are_open_however_many_there_are(
    tmp_path: Path, started: list[CaptureProcess], monkeypatch: pytest.MonkeyPatch, helped: bool
) -> None:
    limit, levels = 64, len(tmp_path.parts) + 2
    for number in range(600):
        place = tmp_path / f"{number // 100}/{number}"
        place.mkdir(parents=True)
        (place / "file").touch()
    monkeypatch.setattr(capture_module, "descriptor_limit", lambda: limit)
    monkeypatch.setattr(helper_process, "is_supported", lambda: helped)
    open_now: set[int] = set()
    most = 0
    made, closed = OpenDirectory.__init__, OpenDirectory.close

    def make(self: OpenDirectory, *args: Any, **more: Any) -> None:
        nonlocal most
        made(self, *args, **more)
        open_now.add(id(self))
        most = max(most, len(open_now))

    def close(self: OpenDirectory) -> None:
        closed(self)
        open_now.discard(id(self))

    monkeypatch.setattr(OpenDirectory, "__init__", make)
    monkeypatch.setattr(OpenDirectory, "close", close)
    assert len(capture(tmp_path, readers=3).found) > 1200
    assert bool(started) is helped
    assert most <= levels + limit // 2
    assert not open_now


def test_what_vanished_is_told_as_by_threads(tree: Path, started: list[CaptureProcess]) -> None:
    def remove(number: int, take: Take) -> None:
        if take.visit.directory.path.endswith(b"/d39") and take.entry[0].startswith(b"f2"):
            Path(os.fsdecode(take.visit.path_of(take.entry[0]))).unlink()

    run = capture(tree, listed=remove)
    gone = {path: entry.error for path, entry in run.found.items() if entry.error is not None}
    assert {path.rpartition(b"/")[2] for path in gone} == {b"f2", *(b"f2%d" % n for n in range(10))}
    assert all("No such file" in str(error) for error in gone.values())
    assert started


def test_what_changed_after_it_was_listed_is_told_as_it_was_read(tree: Path, started: list[CaptureProcess]) -> None:
    path = bytes(tree) + b"/d39/f7"
    listed: list[Stat] = []
    read: list[Stat] = []

    def grow(_: int, take: Take) -> None:
        if take.visit.path_of(take.entry[0]) == path:
            listed.append(take.entry)
            with open(path, "ab") as file:  # noqa: PTH123 - a path of bytes
                file.write(b"more")

    def note(_: int, take: Take) -> None:
        if take.capture is not None and take.visit.path_of(take.entry[0]) == path:
            read.append(take.capture.stat)

    found = capture(tree, listed=grow, during=note).found[path]
    now = os.stat(path)  # noqa: PTH116
    assert started
    assert found.node is not None
    assert found.node.size == read[-1][2] == now.st_size == listed[0][2] + 4
    assert read[-1][3] == found.node.mtime_ns == now.st_mtime_ns
    assert read[-1][4] in (NEVER_SAME, now.st_ctime_ns)  # never that of the listing


def test_what_is_too_young_for_its_times_to_be_trusted_is_marked(
    tree: Path, started: list[CaptureProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper_process, "_START", YOUNG)
    marked: dict[bytes, bool] = {}

    def note(_: int, take: Take) -> None:
        if take.capture is not None and take.visit.directory.path.startswith(bytes(tree)):
            marked[take.visit.path_of(take.entry[0])] = take.capture.stat[4] == NEVER_SAME

    capture(tree, during=note)
    assert started
    assert marked[bytes(tree) + b"/d39/f7"]
    assert sum(marked.values()) > len(marked) // 3  # the first ones are read by threads here


def test_answers_that_are_too_long_are_done_without(
    tree: Path, expected: dict[bytes, Found], started: list[CaptureProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with many large attributes, which not every file system holds."""
    monkeypatch.setattr(helper_process, "_START", SHORT)
    run = capture(tree)
    assert run.found == expected
    assert run.warnings == []
    assert started


def test_nothing_is_imported_from_the_current_directory(
    tree: Path,
    expected: dict[bytes, Found],
    started: list[CaptureProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    for module in ("msgspec", "blake3", "socket", "sitecustomize"):
        (trap / f"{module}.py").write_text("open('sprung', 'w').close(); raise SystemExit(3)")
    monkeypatch.chdir(trap)
    monkeypatch.setenv("PYTHONPATH", ".")
    run = capture(tree)
    assert run.found == expected
    assert run.warnings == []
    assert not (trap / "sprung").exists()
    assert started


def test_a_process_does_not_outlive_its_asker(tree: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from backstay.operations.backup import capture as module\n"
        "from tests.operations.test_capture import capture\n"
        "class Noted(module.CaptureProcess):\n"
        "    def __init__(self, settings):\n"
        "        super().__init__(settings)\n"
        "        print(self.pid, flush=True)\n"
        "    def is_ready(self):\n"
        "        while not super().is_ready(): pass\n"
        "        return True\n"
        "module.CaptureProcess = Noted\n"
        "def die(number, take):\n"
        "    if number == 7: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from pathlib import Path\n"
        "capture(Path(sys.argv[1]), during=die)\n"
    )
    here = Path(__file__).parents[2]
    paths = os.pathsep.join([str(here), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", program, str(tree)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    pid = int(done.stdout)
    for _ in range(1000):
        if not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes():
            return
        time.sleep(0.01)
    raise AssertionError("the process still runs 10 s after its asker was killed")
