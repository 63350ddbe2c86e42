"""The binary log in the repository: byte by byte what the server wrote, whatever happens to those who bring it."""

from __future__ import annotations

import signal
import struct
import time
from functools import partial
from pathlib import Path

import pytest

from backstay.errors import (
    CorruptedBackup,
    CorruptedSource,
    IdentityMismatch,
    SourceRefused,
    SourceUnreachable,
    WalConflict,
)
from backstay.operations.mysql import binlog_cutting
from backstay.operations.mysql.binlog_archive import BinlogArchive
from backstay.operations.mysql.binlog_cutting import GrowingLog
from backstay.operations.mysql.receive import BinlogReceiveOptions, run_binlog_receive
from backstay.operations.wal.storing import Piece
from backstay.repository.repository import Repository
from backstay.repository.wal.slices import slice_name, slice_of
from tests.mysql.receivers import ENVIRON, NAME, Receiver, contents, dump, end, process, stored, until_stored
from tests.mysql.servers import Server
from tests.postgres.receivers import Archive, until

TABLE = "CREATE DATABASE shop; CREATE TABLE shop.item (id INT PRIMARY KEY AUTO_INCREMENT, name TEXT)"
ROWS = "USE shop; INSERT INTO item (name) SELECT sha2(seq, 512) FROM seq_1_to_{}"


def on_disk(server: Server) -> dict[str, bytes]:
    """The files of the server's log that are complete."""
    current = end(server)[0]
    files = sorted(path for path in server.data.glob("binlog.0*") if path.name < current)
    return {path.name: path.read_bytes() for path in files}


def gone(process: str) -> bool:
    return not Path("/proc", process).exists()


def test_files_come_as_the_server_has_them(origin: Server, archive: Archive) -> None:
    with Receiver(archive, origin) as receiver:
        origin.sql(TABLE)
        until_stored(archive, origin, receiver)  # seconds later, in parts
        for rows in (10, 2000, 1):
            origin.sql(ROWS.format(rows) + "; FLUSH BINARY LOGS")
        reached = until_stored(archive, origin, receiver)
    assert receiver.result is not None
    assert receiver.result.durable is not None
    durable = receiver.result.durable
    # MariaDB logs a checkpoint a moment after a file began.
    assert reached <= (durable.file, durable.offset) <= end(origin)
    with archive.open() as repository:
        found, there = contents(repository), on_disk(origin)
        assert len(there) == 3
        assert {file: found[file] for file in there} == there
        assert not [file for file, log in stored(repository).logs.items() if file in there and not log.is_complete]
        names = repository.wal.files(receiver.result.system)
        assert all(not held.parts for file, held in names.items() if slice_of(file) != ("binlog.000004", 0))
    assert not list((archive.place / "home").rglob("backstay-binlog-*"))  # nothing stays behind on the local disk


def test_a_receiver_that_was_killed_leaves_no_hole(origin: Server, archive: Archive) -> None:
    origin.sql(TABLE)
    for _ in range(2):
        receiver = process(archive, origin, "--every", "1s")
        origin.sql(ROWS.format(500))
        until_stored(archive, origin)
        (program,) = Path(f"/proc/{receiver.pid}/task/{receiver.pid}/children").read_text().split()
        receiver.kill()
        receiver.wait()
        until(partial(gone, program), "the program that fetches ends with its receiver")
        origin.sql(ROWS.format(500) + "; FLUSH BINARY LOGS; " + ROWS.format(20))
    receiver = process(archive, origin)
    until_stored(archive, origin)
    receiver.send_signal(signal.SIGTERM)
    assert receiver.wait(30) == 0
    with archive.open() as repository:
        found, there = contents(repository), on_disk(origin)
        assert len(there) == 2
        assert {file: found[file] for file in there} == there
    assert not list((archive.place / "home").rglob("backstay-binlog-*"))  # nor of those that were killed
    assert "stopped: the binary log of shop is stored up to binlog.000003:" in archive.log()


def test_a_server_that_was_killed_is_followed_again(origin: Server, archive: Archive) -> None:
    with Receiver(archive, origin) as receiver:
        origin.sql(TABLE)
        until_stored(archive, origin, receiver)
        port = origin.port
        origin.stop(gently=False)
        until(lambda: receiver.warnings, "it is told")
        origin.start(port=port)
        origin.sql(ROWS.format(10))
        until_stored(archive, origin, receiver)
    assert ["tried again" in receiver.warnings[0], *receiver.warnings[1:]] == [True, "the binary log comes in again"]
    with archive.open() as repository:
        found, there = contents(repository)["binlog.000001"], on_disk(origin)["binlog.000001"]
    assert there[21] == 1  # the mark of a file that is in use, which replicas do not see
    assert found == there[:21] + b"\0" + there[22:]


def test_what_is_stored_is_no_sign_that_the_log_comes_in_again(origin: Server, archive: Archive) -> None:
    with Receiver(archive, origin) as receiver:
        origin.sql(TABLE)
        until_stored(archive, origin, receiver)
        for _ in range(2):
            origin.kill_others()
            time.sleep(2)  # the next session begins after one
        assert len(receiver.warnings) == 1
        origin.sql(ROWS.format(10))
        until_stored(archive, origin, receiver)
    assert receiver.warnings[1:] == ["the binary log comes in again"]


def test_a_file_that_a_killed_server_left_torn_ends_where_it_is_whole(origin: Server, archive: Archive) -> None:
    with Receiver(archive, origin) as receiver:
        origin.sql(TABLE)
        until_stored(archive, origin, receiver)
        whole, port = end(origin)[1], origin.port
        origin.stop(gently=False)
        with (origin.data / "binlog.000001").open("ab") as file:
            file.write(struct.pack("<IBIIIH", 1, 162, 7, 42, whole + 42, 8))  # the first half of an event
        origin.start(port=port)
        origin.sql(ROWS.format(10))
        until_stored(archive, origin, receiver)
    assert [text for text in receiver.warnings if text.startswith("binlog.000001 ends within an event")]
    with Receiver(archive, origin) as again:
        until_stored(archive, origin, again)
    assert again.warnings == []
    with archive.open() as repository:
        found = contents(repository)
        assert [len(found["binlog.000001"]), len(found["binlog.000002"])] == [whole, end(origin)[1]]
        assert stored(repository).logs["binlog.000001"].is_complete


def test_a_long_file_is_stored_in_slices_and_in_parts_of_them(
    origin: Server, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binlog_cutting, "SLICE", 5000)
    origin.sql(TABLE)
    for rows in (7, 100, 3):
        with Receiver(archive, origin) as receiver:
            origin.sql(ROWS.format(rows))
            until_stored(archive, origin, receiver)
    with Receiver(archive, origin) as receiver:
        origin.sql("FLUSH BINARY LOGS")
        until_stored(archive, origin, receiver)
    with archive.open() as repository:
        log = stored(repository).logs["binlog.000001"]
        assert len(log.slices) > 2
        assert log.is_complete
        assert contents(repository)["binlog.000001"] == on_disk(origin)["binlog.000001"]
        last = max(log.slices)
        repository.wal.remove(stored(repository).system, slice_name("binlog.000001", last), log.slices[last])
        with pytest.raises(CorruptedBackup, match="is stored with"):
            contents(repository)


def test_it_begins_with_the_file_of_the_first_dump(origin: Server, archive: Archive) -> None:
    origin.sql(TABLE + "; FLUSH BINARY LOGS")
    with archive.open() as repository:
        dump(repository, origin)
    origin.sql("FLUSH BINARY LOGS; FLUSH BINARY LOGS")
    with Receiver(archive, origin) as receiver:
        until_stored(archive, origin, receiver)
    with archive.open() as repository:
        assert list(stored(repository).logs) == [f"binlog.00000{number}" for number in (2, 3, 4)]


def test_what_the_server_removed_before_it_came_is_a_gap_that_is_told(origin: Server, archive: Archive) -> None:
    with Receiver(archive, origin) as receiver:
        origin.sql(TABLE)
        until_stored(archive, origin, receiver)
    origin.sql("FLUSH BINARY LOGS; FLUSH BINARY LOGS")

    def is_purged() -> bool:  # a file that somebody reads stays
        origin.sql("PURGE BINARY LOGS TO 'binlog.000003'")
        return origin.sql("SHOW BINARY LOGS").startswith("binlog.000003")

    until(is_purged, "files are removed")
    with Receiver(archive, origin) as receiver:
        until_stored(archive, origin, receiver)
    (told,) = receiver.warnings
    assert told.startswith("WalGap: the binary log of shop from binlog.000001 to before binlog.000003 is missing")
    with archive.open() as repository:
        found = stored(repository)
        gap = found.gap_behind(found.run("binlog.000001"))
        assert gap is not None
        assert (gap.first, gap.last, gap.files) == ("binlog.000001", "binlog.000002", 2)


def test_another_server_under_the_same_name_is_refused(server: Server, origin: Server, archive: Archive) -> None:
    origin.sql("DO SLEEP(1); RESET MASTER")  # logs that were begun in one second begin with the same bytes
    with Receiver(archive, origin) as receiver:
        until_stored(archive, origin, receiver)
    receiver = Receiver(archive, server)
    with pytest.raises(IdentityMismatch, match=r"binlog.000001 is not the file of this name"), receiver:
        receiver.ended()
    origin.sql("DO SLEEP(1); RESET MASTER")  # the same server, whose log is another one now
    receiver = Receiver(archive, origin)
    with pytest.raises(IdentityMismatch, match="is not the file of this name"), receiver:
        receiver.ended()


def test_a_log_that_begins_anew_below_what_is_stored_is_refused(origin: Server, archive: Archive) -> None:
    origin.sql("FLUSH BINARY LOGS")
    with Receiver(archive, origin) as receiver:
        until_stored(archive, origin, receiver)
    origin.sql("RESET MASTER")
    receiver = Receiver(archive, origin)
    with pytest.raises(WalConflict, match=r"begins anew with binlog.000001"), receiver:
        receiver.ended()


def test_the_name_of_a_postgres_cluster_is_refused(origin: Server, archive: Archive) -> None:
    with archive.open() as repository:
        repository.wal.bind(NAME, 7, repository.clock)
        repository.wal.store(7, f"{1:024X}", b"segment")
    receiver = Receiver(archive, origin)
    with pytest.raises(IdentityMismatch, match="shop is the name of a PostgreSQL cluster"), receiver:
        receiver.ended()


def test_a_user_who_may_not_replicate_is_told_what_is_missing(server: Server, archive: Archive) -> None:
    server.sql("CREATE USER test_reader@'127.0.0.1'; GRANT BINLOG MONITOR ON *.* TO test_reader@'127.0.0.1'")
    url = f"mysql://test_reader@127.0.0.1:{server.port}/"
    with archive.open() as repository:

        def receive(url: str) -> None:
            run_binlog_receive(repository, BinlogReceiveOptions(url=url, name=NAME), lambda: False, environ=ENVIRON)

        with pytest.raises(SourceRefused, match="does not let its binary log be read") as refused:
            receive(url)
        assert "GRANT REPLICATION SLAVE" in refused.value.hint
        with pytest.raises(SourceUnreachable):
            receive("mysql://root@127.0.0.1:1/")
    assert not list((archive.place / "repository").rglob("wal/*"))


def grown(path: Path, found: BinlogArchive) -> list[Piece]:
    """All pieces of a file that is complete."""
    log = GrowingLog(path, found)
    try:
        pieces: list[Piece] = []
        while (more := log.advance()) is not None:
            pieces += more
        return [*pieces, *log.finish()]
    finally:
        log.close()


def test_a_file_with_a_wrong_byte_is_never_acknowledged(origin: Server, repository: Repository, tmp_path: Path) -> None:
    origin.sql(TABLE + "; " + ROWS.format(2) + "; FLUSH BINARY LOGS")
    good, path = on_disk(origin)["binlog.000001"], tmp_path / "binlog.000001"
    found = BinlogArchive.load(repository.wal, 1)
    path.write_bytes(good)
    assert [piece.data for piece in grown(path, found)] == [good, str(len(good)).encode()]
    for at in range(0, len(good), 3):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
        with pytest.raises(CorruptedSource):
            grown(path, found)
    for length in (0, 3, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(CorruptedSource, match="ends within an event"):
            grown(path, found)
