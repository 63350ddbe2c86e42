"""`pg archive` as archive_command: it succeeds only when a file is durable, and never with a status above 125."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from pathlib import Path

import pytest

from backstay.errors import (
    BadWalName,
    CorruptedSource,
    IdentityMismatch,
    InvalidRequest,
    WalConflict,
    WalWrongSize,
)
from backstay.operations.archiving.wal_file import archive_file
from backstay.operations.wal.coverage import WalCoverage
from backstay.sources.postgres import archive_client
from backstay.sources.postgres.lsn import segment_name
from tests.postgres.conftest import StartServer
from tests.postgres.made_wal import SIZE, SYSTEM, at, commit, segment
from tests.postgres.receivers import Archive, system_of, until


class Courier:
    """Runs what a server's archive_command asks for: the server's own user may not see the program of the tests."""

    def __init__(self, archive: Archive, place: Path) -> None:
        self.archive, self.place = archive, place
        place.mkdir()
        self.command = f"{place}/ask %p %f"
        (place / "ask").write_text(
            f'#!/bin/sh\ncd {place}\necho "$1" > "$2.new" && mv "$2.new" "$2.asked"\n'
            'until [ -s "$2.told" ]; do sleep 0.05; done\nread status < "$2.told"; rm "$2.told"; exit "$status"\n'
        )
        (place / "ask").chmod(0o755)
        self.statuses: list[int] = []

    def serve(self, data: Path, until_stopped: threading.Event) -> None:
        while not until_stopped.wait(0.05):
            for asked in self.place.glob("*.asked"):
                path = data / asked.read_text().strip()
                asked.unlink()
                done = subprocess.run(
                    **self.archive.command("pg", "archive", "--name", "main", path), capture_output=True
                )
                self.statuses.append(done.returncode)
                told = asked.with_suffix(".status")
                told.write_text(f"{done.returncode}\n")
                told.rename(asked.with_suffix(".told"))


def test_a_server_archives_its_segments(start_server: StartServer, archive: Archive) -> None:
    server = start_server(archive_mode="on")
    courier = Courier(archive, server.place / "courier")
    server.own(courier.place)
    server.sql(f"alter system set archive_command = '{courier.command}'")
    server.sql("select pg_reload_conf()")
    away = archive.place / "away"
    (archive.place / "repository").rename(away)
    stop = threading.Event()
    serving = threading.Thread(target=courier.serve, args=(server.data, stop))
    serving.start()
    try:
        server.sql("create table t(i int); select pg_switch_wal()")
        until(lambda: courier.statuses, "the server asks once")
        away.rename(archive.place / "repository")
        for number in range(2):
            server.sql(f"create table t{number}(i int); select pg_switch_wal()")
        done = "select archived_count >= 3 from pg_stat_archiver"
        until(lambda: server.sql(done) == "t", "three segments are archived", 60)
    finally:
        stop.set()
        serving.join()
    assert set(courier.statuses) == {0, 1}
    system = system_of(server)
    with archive.open() as repository:
        files = repository.wal.files(system)
        assert len(files) >= 3
        for file, stored in files.items():
            assert repository.wal.read(system, file, stored) == (server.data / "pg_wal" / file).read_bytes()
        assert repository.wal.bound("main") == system


def put(place: Path, name: str, data: bytes, *, system: int = SYSTEM) -> Path:
    """A file in the pg_wal of something that looks like a data directory."""
    (place / "pg_wal").mkdir(parents=True, exist_ok=True)
    (place / "global").mkdir(exist_ok=True)
    (place / "global/pg_control").write_bytes(system.to_bytes(8, "little") + bytes(100))
    path = place / "pg_wal" / name
    path.write_bytes(data)
    return path


def test_files_are_stored_once(archive: Archive, tmp_path: Path) -> None:
    name = segment_name(1, 3 * SIZE, SIZE)
    data = segment(3, [commit(1, at(3))])
    path = put(tmp_path / "pg", name, data)
    with archive.open() as repository:
        assert archive_file(repository, path, "main").stored
        assert not archive_file(repository, path, "main").stored
        history = put(tmp_path / "pg", "00000002.history", b"1\t0/300\tx\n")
        label = put(tmp_path / "pg", f"{name}.00000028.backup", b"START WAL LOCATION\n")
        assert archive_file(repository, history, "main").system == SYSTEM
        assert archive_file(repository, label, "main").stored
        path.write_bytes(segment(3, [commit(2, at(3))]))
        with pytest.raises(WalConflict):
            archive_file(repository, path, "main")
        assert repository.wal.read(SYSTEM, name, repository.wal.files(SYSTEM)[name]) == data


def test_what_is_no_whole_segment_of_this_cluster_is_refused(archive: Archive, tmp_path: Path) -> None:
    name, data = segment_name(1, 3 * SIZE, SIZE), segment(3)
    with archive.open() as repository:
        archive_file(repository, put(tmp_path / "pg", name, data), "main")
        following = segment_name(1, 4 * SIZE, SIZE)
        for torn in (segment(4)[:-1], segment(4)[:8192], segment(4) + b"x"):
            with pytest.raises(WalWrongSize):
                archive_file(repository, put(tmp_path / "pg", following, torn), "main")
        for bad in (segment(5), bytes(SIZE), b""):
            with pytest.raises(CorruptedSource, match="no such segment") as refused:
                archive_file(repository, put(tmp_path / "pg", following, bad), "main")
            assert "the server" in refused.value.hint  # the repository has nothing to do with it
        for bad in (b"garbage", b"3\t0/1\n", b"", b"# nothing\n"):
            with pytest.raises(CorruptedSource, match="no history"):
                archive_file(repository, put(tmp_path / "pg", "00000003.history", bad), "main")
        with pytest.raises(IdentityMismatch):
            archive_file(repository, put(tmp_path / "pg", following, segment(4, system=8)), "main")
        with pytest.raises(IdentityMismatch):
            archive_file(repository, put(tmp_path / "pg", "00000003.history", b"1\t0/1\n", system=8), "main")
        (tmp_path / "pg/global/pg_control").unlink()
        with pytest.raises(InvalidRequest, match="which cluster"):
            archive_file(repository, tmp_path / "pg/pg_wal/00000003.history", "main")
        with pytest.raises(BadWalName, match="no WAL file"):
            archive_file(repository, put(tmp_path / "pg", "postgresql.conf", b""), "main")
        assert list(repository.wal.files(SYSTEM)) == [name]


def test_what_is_no_file_is_refused_and_not_waited_for(archive: Archive, tmp_path: Path) -> None:
    pipe, directory = (put(tmp_path / "pg", segment_name(1, number * SIZE, SIZE), b"") for number in (3, 4))
    pipe.unlink()
    os.mkfifo(pipe)
    directory.unlink()
    directory.mkdir()
    with archive.open() as repository:
        for path in (pipe, directory):
            with pytest.raises(InvalidRequest, match="is no file"):
                archive_file(repository, path, "main")
    name, files = archive_client.opened(str(pipe))
    for file in files:
        os.close(file)
    assert name == pipe.name


def test_the_last_segment_of_a_timeline_is_stored_up_to_its_records(archive: Archive, tmp_path: Path) -> None:
    name = segment_name(1, 3 * SIZE, SIZE)
    data = bytearray(segment(3, [commit(1, at(3)), commit(2, at(4))]))
    data[-5000:-4000] = b"\x77" * 1000  # of an older segment, whose file this was
    path = put(tmp_path / "pg", f"{name}.partial", bytes(data))
    with archive.open() as repository:
        assert archive_file(repository, path, "main").stored
        assert not archive_file(repository, path, "main").stored
        coverage = WalCoverage.load(repository.wal, SYSTEM)
        (run,) = coverage.runs(coverage.path(1))
        assert 3 * SIZE < run.end < 3 * SIZE + 200
        assert coverage.last_commit_time(coverage.path(1), run, 0) == at(4)


def test_a_file_with_other_bytes_than_were_received_is_refused(archive: Archive, tmp_path: Path) -> None:
    """A copy of the server's data directory writes another log under the same names."""
    name = segment_name(1, 3 * SIZE, SIZE)
    data = segment(3, [commit(1, at(3)), commit(2, at(4))])
    with archive.open() as repository:
        for part in ((0, 80), (80, 1000)):
            repository.wal.store_part(SYSTEM, name, part[0], data[slice(*part)])
        for suffix in ("", ".partial"):
            copied = put(tmp_path / "pg", name + suffix, segment(3, [commit(1, at(3)), commit(3, at(5))]))
            with pytest.raises(WalConflict, match="other bytes"):
                archive_file(repository, copied, "main")
        stored = repository.wal.files(SYSTEM)[name]
        assert repository.wal.read(SYSTEM, name, stored) == data[:1000]
        assert archive_file(repository, put(tmp_path / "pg", name, data), "main").stored


def test_a_partial_file_contradicts_less_that_was_received(archive: Archive, tmp_path: Path) -> None:
    name = segment_name(1, 3 * SIZE, SIZE)
    with archive.open() as repository:
        repository.wal.store_part(SYSTEM, name, 0, segment(3, [commit(1, at(3))])[:80])
        path = put(tmp_path / "pg", f"{name}.partial", segment(3, [commit(2, at(4)), commit(3, at(5))]))
        with pytest.raises(WalConflict, match="other bytes"):
            archive_file(repository, path, "main")


def test_every_refusal_ends_with_1(archive: Archive, tmp_path: Path) -> None:
    path = put(tmp_path / "pg", segment_name(1, 3 * SIZE, SIZE), segment(3))
    other = put(tmp_path / "other", segment_name(1, 3 * SIZE, SIZE), segment(3, system=9))
    assert archive.json("pg", "archive", "--name", "main", path)["stored"] is True
    done = archive.run("pg", "archive", "--name", "main", other, status=1)
    assert re.search("another database cluster.*\ncause: .*\nhint: ", done.stderr)
    done = archive.run("pg", "archive", "--name", "main", tmp_path / "none/00000001000000000000000A", status=1)
    assert "No such file" in done.stderr
    archive.run("-r", tmp_path / "nowhere", "pg", "archive", "--name", "main", path, status=1)
    archive.run("pg", "archive", "--name", "a/b", path, status=1)
