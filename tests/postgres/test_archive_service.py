"""`pg archive --serve`: archive_command asks a process, and is told yes only about what is durable."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest

from backstay.cli.main import run
from backstay.cli.pg_archive import _server_user
from backstay.core.clock import SystemClock
from backstay.core.events import Event, Warned, ignore
from backstay.core.local_service import LocalService
from backstay.errors import InvalidRequest, ServiceRunning
from backstay.operations.archiving import answers as archive_answers
from backstay.operations.archiving.ahead import LookAhead
from backstay.operations.archiving.answers import Answering
from backstay.operations.archiving.jobs import ArchiveJobs
from backstay.operations.archiving.service import (
    ArchiveServiceOptions,
    ArchiveServiceResult,
    archive_command,
    run_archive_service,
)
from backstay.operations.archiving.wal_file import Archiver
from backstay.repository.repository import Repository
from backstay.sources.postgres import archive_client
from backstay.sources.postgres.lsn import segment_name
from backstay.storage.backend import Buffer
from backstay.storage.local import LocalStorage
from tests.postgres.conftest import StartServer
from tests.postgres.made_wal import SIZE, SYSTEM, at, commit, segment
from tests.postgres.receivers import NAME, Archive, system_of, until
from tests.postgres.servers import Server
from tests.postgres.test_archive import put

LOAD = (
    "create table if not exists t(i int, v text);"
    " insert into t select i, md5(i::text) from generate_series(1, 60000) i; select pg_switch_wal()"
)


@pytest.fixture
def place_of_socket(place: Path) -> Path:
    """Where the user of the servers can connect."""
    return place.parent / "run" / NAME


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What looks like a data directory to those who archive."""
    (tmp_path / "pg/pg_wal/archive_status").mkdir(parents=True)
    return tmp_path / "pg"


class GatedStorage(LocalStorage):
    """A store that takes WAL only while its gate is open."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Event()
        self.stored: list[str] = []

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        if name.startswith(f"wal/{SYSTEM:016x}/"):
            assert self.gate.wait(30)
            self.stored.append(name.rpartition("/")[2])
        super().store(name, data, overwrite=overwrite)


class ThreadedService:
    """A service on a thread of this process, for our own user; use it as a context manager."""

    def __init__(self, repository: Repository, place: Path, *, ahead: int = 4) -> None:
        self.options = ArchiveServiceOptions(name=NAME, socket=place / "run/main", user=os.geteuid(), ahead=ahead)
        self._repository = repository
        self._stop, self._ready = threading.Event(), threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self.warnings: list[str] = []

    def __enter__(self) -> Self:
        self._result = self._pool.submit(
            run_archive_service,
            self._repository,
            self.options,
            self._stop.is_set,
            events=self._noted,
            ready=self._ready.set,
        )
        assert self._ready.wait(60)
        return self

    def _noted(self, event: Event) -> None:
        if isinstance(event, Warned):
            self.warnings.append(event.message)

    def stop(self) -> ArchiveServiceResult:
        self._stop.set()
        return self._result.result(30)

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._pool.shutdown()

    def refusal(self, path: Path) -> str:
        """What archive_command says when it is refused."""
        done = call(self.options.client, path)
        assert done.returncode == 1, done
        return done.stderr

    def accepts(self, path: Path) -> bool:
        done = call(self.options.client, path)
        assert done.returncode in (0, 1), done
        return done.returncode == 0


def call(client: Path, path: object, *more: str) -> subprocess.CompletedProcess[str]:
    """What archive_command does."""
    words = [sys.executable, "-I", "-S", str(client), str(path), *more]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def put_segment(data: Path, number: int, *, is_ready: bool = True, xid: int = 1) -> Path:
    """A segment of pg_wal, which its server has marked to be archived."""
    name = segment_name(1, number * SIZE, SIZE)
    if is_ready:
        (data / f"pg_wal/archive_status/{name}.ready").touch()
    return put(data, name, segment(number, [commit(xid, at(number))]))


def let_archive(server: Server, log: str) -> None:
    """Set what the service tells to set."""
    found = re.search(r"^archive_command = '(.*)'$", log, re.MULTILINE)
    assert found, log
    server.sql(f"alter system set archive_command = '{found[1]}'")
    server.sql("select pg_reload_conf()")


def acknowledged(server: Server) -> set[str]:
    """The files that the server may remove."""
    return {path.stem for path in (server.data / "pg_wal/archive_status").glob("*.done")}


def waiting(server: Server) -> set[str]:
    return {path.stem for path in (server.data / "pg_wal/archive_status").glob("*.ready")}


def compare(archive: Archive, server: Server, files: set[str]) -> None:
    """All of these are stored, with the server's own bytes."""
    system = system_of(server)
    with archive.open() as repository:
        stored = repository.wal.files(system)
        for file in files:
            assert repository.wal.read(system, file, stored[file]) == (server.data / "pg_wal" / file).read_bytes()


@pytest.mark.parametrize("version", [16, 18])
def test_kills_under_load_acknowledge_nothing_that_is_not_stored(
    start_server: StartServer, archive: Archive, place_of_socket: Path, version: int
) -> None:
    server = start_server(version=version, archive_mode="on", max_wal_size="4GB")
    service = archive.service(place_of_socket)
    let_archive(server, archive.log())
    for _ in range(2):
        server.sql(LOAD)
        until(lambda: len(acknowledged(server)) >= 1, "the server archives")
        service.kill()
        service.wait(10)
        compare(archive, server, acknowledged(server))
        server.sql(LOAD)
        assert place_of_socket.is_socket()
        service = archive.service(place_of_socket)
    server.sql(LOAD)
    until(lambda: not waiting(server), "all is archived", 90)
    files = acknowledged(server)
    assert len(files) >= 5
    compare(archive, server, files)
    assert archive.json("pg", "status", "--name", NAME, status=1)["gaps"] == []
    service.send_signal(signal.SIGTERM)
    assert service.wait(60) == 0, archive.log()
    assert "stopped: " in archive.log()
    assert not place_of_socket.exists()
    server.sql(LOAD)
    until(lambda: "nobody listens" in server.log(), "the server's log has the reason")


def test_a_server_hears_why_nothing_is_archived(
    start_server: StartServer, archive: Archive, place_of_socket: Path
) -> None:
    server = start_server(segment_mib=1, archive_mode="on")
    archive.service(place_of_socket)
    away = archive.place / "away"
    (archive.place / "repository").rename(away)
    let_archive(server, archive.log())
    server.sql("create table t(i int); select pg_switch_wal()")
    until(lambda: "backstay: StorageMissing: no directory" in server.log(), "the store is missed")
    with Repository.open(LocalStorage(away), archive.secret) as repository:
        repository.wal.bind(NAME, SYSTEM, SystemClock())
    away.rename(archive.place / "repository")
    until(lambda: "backstay: IdentityMismatch: main is the name of another" in server.log(), "the cluster is refused")
    with archive.open() as repository:
        assert repository.wal.systems() == []
    assert not acknowledged(server)


def test_refusals_come_with_their_reason(archive: Archive, data: Path, tmp_path: Path) -> None:
    first, other = put_segment(data, 3), tmp_path / "other"
    with archive.open() as repository, ThreadedService(repository, tmp_path) as service:
        assert service.accepts(first)
        assert service.accepts(put(data, "00000002.history", b"1\t0/300\tx\n"))
        foreign = put(other, segment_name(1, 4 * SIZE, SIZE), segment(4, system=9))
        assert "IdentityMismatch" in service.refusal(foreign)
        torn = put(data, segment_name(1, 5 * SIZE, SIZE), segment(5)[:-1])
        assert "WalWrongSize" in service.refusal(torn)
        assert "BadWalName" in service.refusal(put(data, "postgresql.conf", b""))
        first.write_bytes(segment(3, [commit(2, at(3))]))
        assert re.fullmatch(r"backstay: WalConflict: .*with other bytes.*\n", service.refusal(first))
        assert "No such file" in service.refusal(data / "pg_wal/00000001000000000000000A")
        (data / "global/pg_control").unlink()
        assert "which cluster" in service.refusal(put_history(data))
        (archive.place / "repository").rename(archive.place / "away")
        following = put_segment(data, 6)
        assert "StorageMissing" in service.refusal(following)
        (archive.place / "away").rename(archive.place / "repository")
        assert service.accepts(following)
        assert any(warning.startswith(f"{first.name} was not archived: WalConflict") for warning in service.warnings)
        result = service.stop()
    assert (result.files, result.refused) == (3, 6)
    assert stat.S_IMODE(service.options.client.stat().st_mode) == 0o644


def put_history(data: Path) -> Path:
    (data / "pg_wal/00000003.history").write_bytes(b"1\t0/300\tx\n")
    return data / "pg_wal/00000003.history"


def test_segments_are_stored_before_they_are_asked_for(archive: Archive, data: Path, tmp_path: Path) -> None:
    paths = [put_segment(data, number) for number in range(3, 10)]
    put_segment(data, 20, is_ready=False)

    def stored() -> list[str]:
        return list(repository.wal.files(SYSTEM))

    with archive.open() as repository, ThreadedService(repository, tmp_path, ahead=3) as service:
        assert service.accepts(paths[0])
        until(lambda: len(stored()) >= 4, "three more are stored")
        assert stored() == [path.name for path in paths[:4]]
        assert all(service.accepts(path) for path in paths)
        result = service.stop()
    assert result.files == len(paths) + 1
    assert result.found >= 3
    with archive.open() as repository:
        assert stored() == [path.name for path in paths]


def test_what_was_stored_ahead_and_changed_is_not_acknowledged(archive: Archive, data: Path, tmp_path: Path) -> None:
    first, second, third = (put_segment(data, number) for number in (3, 4, 5))
    with archive.open() as repository, ThreadedService(repository, tmp_path) as service:
        assert service.accepts(first)
        until(lambda: third.name in repository.wal.files(SYSTEM), "the others are stored")
        found = second.stat()
        with second.open("r+b") as file:
            file.write(segment(4, [commit(9, at(4))]))
        os.utime(second, ns=(found.st_atime_ns, found.st_mtime_ns))  # only the time of the last change tells
        assert "WalConflict" in service.refusal(second)
        other = data / "copy"
        other.write_bytes(third.read_bytes())
        other.replace(third)
        assert service.accepts(third)  # another file with the same bytes


def test_looking_ahead_follows_no_links(archive: Archive, data: Path, tmp_path: Path) -> None:
    first = put_segment(data, 3)
    hidden = put(tmp_path / "elsewhere", segment_name(1, 4 * SIZE, SIZE), segment(4))
    (data / f"pg_wal/archive_status/{hidden.name}.ready").touch()
    (data / f"pg_wal/{hidden.name}").symlink_to(hidden)
    with archive.open() as repository, ThreadedService(repository, tmp_path) as service:
        assert service.accepts(first)
        until(lambda: service.warnings, "the link is told")
        assert list(repository.wal.files(SYSTEM)) == [first.name]


def test_a_directory_that_cannot_be_looked_at_is_told_and_archived(
    archive: Archive, data: Path, tmp_path: Path
) -> None:
    (data / "pg_wal/archive_status").rmdir()
    with archive.open() as repository, ThreadedService(repository, tmp_path) as service:
        for number in (3, 4):
            assert service.accepts(put_segment(data, number, is_ready=False))
        until(lambda: service.warnings, "it is told")
    assert len(service.warnings) == 1


def test_a_slow_store_is_asked_again_and_stores_once(
    archive: Archive, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_answers, "PATIENCE_S", 0.1)
    storage = GatedStorage(archive.place / "repository")
    path = put_segment(data, 3)
    with (
        Repository.open(storage, archive.secret) as repository,
        ThreadedService(repository, tmp_path, ahead=0) as service,
    ):
        for _ in range(2):
            assert "not stored yet" in service.refusal(path)
        storage.gate.set()
        until(lambda: service.accepts(path), "it is stored")
    assert storage.stored == [path.name]


def test_who_has_asked_is_answered_before_it_ends(archive: Archive, data: Path, tmp_path: Path) -> None:
    storage = GatedStorage(archive.place / "repository")
    path = put_segment(data, 3)
    with (
        Repository.open(storage, archive.secret) as repository,
        ThreadedService(repository, tmp_path) as service,
        ThreadPoolExecutor(2) as pool,
    ):
        asking = pool.submit(service.accepts, path)
        until(lambda: threads("answer"), "it is asked")
        ending = pool.submit(service.stop)
        until(lambda: not service.options.socket.exists(), "it takes no more requests")
        storage.gate.set()
        assert asking.result(20)
        assert ending.result(20).files == 1


def threads(name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


# -- the client


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """The client of a socket at which nobody listens yet."""
    (tmp_path / "quiet.py").write_bytes(Path(archive_client.__file__).read_bytes())
    return tmp_path / "quiet.py"


@pytest.fixture
def listening(client: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind(str(client.with_suffix("")))
        made.listen()
        yield made


def test_nobody_who_listens_is_told(client: Path, data: Path) -> None:
    done = call(client, put_segment(data, 3))
    assert (done.returncode, done.stdout) == (1, "")
    assert "`backstay pg archive --serve` does not run" in done.stderr
    assert "%p" in call(client, "a", "1", "b").stderr


def test_one_that_hangs_is_not_waited_for(client: Path, data: Path, listening: socket.socket) -> None:
    begun = time.monotonic()
    done = call(client, put_segment(data, 3), "0.2")
    assert done.returncode == 1
    assert "no answer" in done.stderr
    assert time.monotonic() - begun < 25


def test_one_that_ends_before_it_answers_has_said_no(client: Path, data: Path, listening: socket.socket) -> None:
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(call, client, put_segment(data, 3))
        connection, _ = listening.accept()
        connection.recv(1)
        connection.close()
    assert asking.result().returncode == 1
    assert "ended before it answered" in asking.result().stderr


def test_the_command_survives_odd_places() -> None:
    told = archive_command(Path("/run/50% it's/main.py"), "/usr/bin/python3")
    assert told == ("archive_command = '/usr/bin/python3 -I -S ''/run/50%% it''\"''\"''s/main.py'' %p || exit 1'")


# -- the socket


def test_only_one_listens_and_what_is_stale_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "run/main"
    first = LocalService(path, open_to_all=False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ServiceRunning, match="another process"):
        LocalService(path, open_to_all=False)
    os.close(first._lock)  # as the kernel does when a process is killed
    with LocalService(path, open_to_all=True) as second:
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert second.accept(0) is None
    assert not path.exists()
    first._socket.close()


def test_a_place_that_others_may_change_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(InvalidRequest, match="no place"):
        LocalService(tmp_path / "open/main", open_to_all=False)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequest, match="no socket"):
        LocalService(tmp_path / "file", open_to_all=False)
    with pytest.raises(InvalidRequest, match="cannot listen"):
        LocalService(tmp_path / "file/below", open_to_all=False)
    with pytest.raises(InvalidRequest, match="too long"):
        LocalService(tmp_path / ("x" * 120), open_to_all=False)


def test_who_may_not_ask_is_refused(archive: Archive) -> None:
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with archive.open() as repository, mine:
        jobs = ArchiveJobs(Archiver(repository, NAME))
        ahead = LookAhead(jobs, 1, ignore)
        answering = Answering(jobs, ahead, users=frozenset({4711}), clock=SystemClock(), events=ignore)
        answering.begin(its)
        assert b"may not archive" in mine.recv(4096)
        ahead.close()


def test_what_is_no_request_is_refused(archive: Archive, tmp_path: Path) -> None:
    with archive.open() as repository, ThreadedService(repository, tmp_path) as service:
        for descriptors in ([], [0], [0, 0, 0, 0]):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
                asking.connect(str(service.options.socket))
                socket.send_fds(asking, [b"00000002.history"], descriptors)
                assert b"cannot be read" in asking.recv(4096)


# -- the command line


def test_what_cannot_be_served_is_told(archive: Archive, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def refused(*argv: Any, status: int) -> str:
        command = archive.command("pg", "archive", "--name", NAME, *argv)
        assert run(command["args"][3:], command["env"]) == status
        return capfd.readouterr().err

    assert "neither PATH nor --serve" in refused(status=1)
    assert "takes no file" in refused("--serve", "--user", "root", tmp_path / "file", status=2)
    with LocalService(tmp_path / "run/main", open_to_all=False):
        told = refused("--serve", "--user", "root", "--socket", tmp_path / "run/main", status=11)
        assert "another process answers" in told


def test_the_user_of_the_server_is_known() -> None:
    assert _server_user("root") == 0
    with pytest.raises(InvalidRequest, match="no user nosuchuser"):
        _server_user("nosuchuser")
    if os.geteuid() == 0:
        with pytest.raises(InvalidRequest, match="nobody could ask"):
            _server_user(None)
    else:
        assert _server_user(None) == os.geteuid()
