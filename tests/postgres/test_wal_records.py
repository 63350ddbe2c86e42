"""Commits and restore points as pg_waldump sees them."""

from __future__ import annotations

import random
import re
import struct
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backstay.errors import CorruptedBackup
from backstay.sources.postgres.lsn import PAGE, SEGMENT, parse_lsn, segment_start
from backstay.sources.postgres.wal_records import (
    Abort,
    Commit,
    Event,
    EventReader,
    RestorePoint,
    events,
    last_commit,
    segment_header,
)
from tests.postgres.conftest import StartServer
from tests.postgres.made_wal import SIZE, at, commit, header, record, stream
from tests.postgres.servers import Server

_LINE = re.compile(
    r"rmgr: (?P<rmgr>\S+) +len .*? tx: +(?P<xid>\d+), lsn: (?P<lsn>\S+), prev \S+, desc: (?P<what>\S+) (?P<rest>.*)"
)


def _dumped(server: Server, first: Path, last: Path) -> list[tuple[str, int, int | str]]:
    """(what, position, xid or name), by pg_waldump; positions are where records begin."""
    found: list[tuple[str, int, int | str]] = []
    for line in server.tool("pg_waldump", "-p", first.parent, first.name, last.name, check=False).stdout.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        lsn = parse_lsn(match["lsn"])
        if match["rmgr"] == "Transaction" and match["what"] == "COMMIT":
            found.append(("commit", lsn, int(match["xid"])))
        elif match["rmgr"] == "Transaction" and match["what"] == "COMMIT_PREPARED":
            found.append(("commit", lsn, int(match["rest"].split(":")[0])))
        elif match["rmgr"] == "Transaction" and match["what"] == "ABORT":
            found.append(("abort", lsn, int(match["xid"])))
        elif match["rmgr"] == "Transaction" and match["what"] == "ABORT_PREPARED":
            found.append(("abort", lsn, int(match["rest"].split(":")[0])))
        elif match["rmgr"] == "XLOG" and match["what"] == "RESTORE_POINT":
            found.append(("name", lsn, match["rest"]))
    return found


def _told(found: list[Event]) -> list[tuple[str, int, int | str]]:
    told: list[tuple[str, int, int | str]] = []
    for event in found:
        if isinstance(event, Commit):
            told.append(("commit", event.lsn, event.xid))
        elif isinstance(event, Abort):
            told.append(("abort", event.lsn, event.xid))
        elif isinstance(event, RestorePoint):
            told.append(("name", event.lsn, event.name))
    return told


@pytest.mark.parametrize("version", [16, 18])
def test_events_are_those_of_pg_waldump(start_server: StartServer, version: int) -> None:
    server = start_server(version=version, max_prepared_transactions=4, full_page_writes="on")
    before = datetime.now(UTC)
    server.sql("create table t as select i, repeat(md5(i::text), 20) v from generate_series(1, 12000) i")
    server.sql("begin; create table gone(i int); drop table t; create table u(i int); prepare transaction 'later'")
    server.sql("select pg_create_restore_point('before the rest')")
    server.sql("commit prepared 'later'")
    server.sql("begin; create table w(i int); insert into w values (1); rollback")
    server.sql("begin; create table v(i int); prepare transaction 'never'")
    server.sql("rollback prepared 'never'")
    # Thousands of small transactions, so that commits lie across pages and across the end of a segment.
    server.sql(
        "create procedure many() language plpgsql as $$ begin for n in 1..12000 loop "
        "insert into u select n; if n % 10 = 0 then insert into gone select generate_series(1, 400); end if; "
        "commit; end loop; end $$"
    )
    server.sql("call many()")
    server.sql("select pg_logical_emit_message(true, 'backstay', 'x')")
    after = datetime.now(UTC)
    server.sql("select pg_switch_wal()")

    segments = sorted(path for path in (server.data / "pg_wal").iterdir() if re.fullmatch(r"[0-9A-F]{24}", path.name))
    reader = EventReader()
    found: list[Event] = []
    single: list[Event] = []
    for path in segments:
        data = path.read_bytes()
        if int.from_bytes(data[8:16], "little") != segment_start(path.name):
            break  # a file that waits to be used
        found += reader.feed(data)
        inside = list(events(data))
        single += inside
        commits = [event for event in inside if isinstance(event, Commit)]
        assert last_commit(data) == (commits[-1] if commits else None)
    assert len(segments) >= 3
    assert len(found) > 12_000
    assert _told(found) == _dumped(server, segments[0], segments[-1])
    assert set(single) <= set(found)
    assert [event.name for event in found if isinstance(event, RestorePoint)] == ["before the rest"]
    timed = [event for event in found if isinstance(event, (Commit, RestorePoint))]
    assert all(before <= event.time <= after for event in timed[-12_000:])


def test_a_segment_that_is_partly_there_is_read_up_to_its_end(server: Server) -> None:
    server.sql("create table t(i int)")
    for number in range(30):
        server.sql(f"insert into t select generate_series({number}, {number} + 300)")
    name = server.sql("select pg_walfile_name(pg_current_wal_lsn())")
    data = (server.data / "pg_wal" / name).read_bytes()
    whole = [event for event in events(data) if isinstance(event, Commit)]
    assert len(whole) > 30
    header = segment_header(data)
    for cut in (whole[10].end, whole[10].end - 9, whole[20].end + 5, whole[20].lsn - header.start, 3 * PAGE + 100):
        size = cut - header.start if cut > header.start else cut
        there = [event for event in whole if event.end <= header.start + (size + 7 & ~7)]
        for kept in (data[:size], data[:size].ljust(len(data), b"\0")):
            assert [event for event in events(kept) if isinstance(event, Commit)][: len(there)] == there
            assert (last_commit(kept) or whole[0]).lsn >= (there[-1].lsn if there else 0)
    assert last_commit(b"") is None
    assert last_commit(bytes(SEGMENT)) is None
    assert list(events(data[:30])) == []


def test_the_beginning_of_a_segment_says_whose_it_is(server: Server) -> None:
    name = server.sql("select pg_walfile_name(pg_current_wal_lsn())")
    data = (server.data / "pg_wal" / name).read_bytes()
    header = segment_header(data)
    assert str(header.system) == server.sql("select system_identifier from pg_control_system()")
    assert header.segment_size == SEGMENT
    assert header.start == segment_start(name)
    for damaged in (data[:20], bytes(64), data[:1] + b"x" + data[2:64]):
        with pytest.raises(CorruptedBackup):
            segment_header(damaged)


def test_records_go_on_over_segments() -> None:
    large = record(9, 10, 0, b"x" * 200)[:-8]
    huge = (len(large) + 3 * SIZE).to_bytes(4, "little") + large[4:] + bytes(3 * SIZE)
    records = [commit(1, at(1)), huge + bytes(-len(huge) % 8), commit(2, at(2)), commit(3, at(3))]
    data = stream(8 * SIZE, records, 4 * SIZE // PAGE)
    reader = EventReader()
    found = [
        [event.xid for event in reader.feed(data[n * SIZE : (n + 1) * SIZE]) if isinstance(event, Commit)]
        for n in range(4)
    ]
    assert found == [[1], [], [], [2, 3]]
    assert reader.position is not None
    assert reader.position > 11 * SIZE
    last = last_commit(data[3 * SIZE :])
    assert last is not None
    assert last.xid == 3
    assert last_commit(data[SIZE : 2 * SIZE]) is None


def test_a_record_that_a_crash_cut_is_passed_over() -> None:
    whole = record(9, 10, 0, b"x" * 250)
    cut = (20_000).to_bytes(4, "little") + whole[4:]
    first = (header(8 * SIZE) + commit(1, at(1)) + cut).ljust(PAGE, b"x")
    second = (header(8 * SIZE + PAGE, info=8) + commit(2, at(2))).ljust(PAGE, b"\0")
    data = (first + second).ljust(SIZE, b"\0")
    assert [event.xid for event in events(data) if isinstance(event, Commit)] == [1, 2]
    last = last_commit(data)
    assert last is not None
    assert last.xid == 2
    # The same at the end of a segment.
    reader = EventReader()
    cut = (9 * SIZE).to_bytes(4, "little") + whole[4:]
    one = stream(8 * SIZE, [commit(1, at(1)), cut.ljust(2 * SIZE, b"x")], SIZE // PAGE)
    two = (header(9 * SIZE, info=8) + commit(2, at(2))).ljust(SIZE, b"\0")
    assert [event.xid for part in (one, two) for event in reader.feed(part) if isinstance(event, Commit)] == [1, 2]


def test_damaged_wal_is_read_without_an_exception() -> None:
    rng = random.Random(3)
    prepared = record(0, 1, 0x30 | 0x80, struct.pack("<qIIi", 10**15, 0x13, 1, 2) + bytes(30))
    records = [commit(n, at(n)) if n % 3 else prepared for n in range(1, 900)]
    data = stream(8 * SIZE, records, 8)
    for _ in range(400):
        changed = bytearray(data[: rng.randrange(1, len(data))] if rng.random() < 0.3 else data)
        for _ in range(rng.randrange(1, 30)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        list(events(bytes(changed)))
        last_commit(bytes(changed))
