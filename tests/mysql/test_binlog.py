"""Events and transactions of binary logs as MySQL's and MariaDB's documentation has them, made by hand."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import pairwise
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import CorruptedSource, InvalidRequest
from backstay.sources.mysql.binlog import (
    MAGIC,
    Event,
    EventReader,
    Position,
    Transaction,
    Transactions,
    parse_gtid,
    parse_position,
    position_at,
)

UUID = bytes.fromhex("3e11fa4771ca11e19e33c80aa9429562")
QUERY, FORMAT, XID, ROWS, ANONYMOUS, GTID, PAYLOAD = 2, 15, 16, 30, 34, 33, 40
PREVIOUS, ROTATE, MARIADB_GTID, GTID_LIST = 35, 4, 162, 163


def query(sql: str, database: str = "shop") -> bytes:
    return struct.pack("<IIBHH", 1, 0, len(database), 0, 3) + b"\0\0\0" + database.encode() + b"\0" + sql.encode()


def gtid(number: int) -> bytes:
    return b"\1" + UUID + number.to_bytes(8, "little") + bytes(17)


def prepare(name: bytes, branch: bytes) -> bytes:
    return struct.pack("<?III", False, 1, len(name), len(branch)) + name + branch


def mariadb_gtid(number: int, *, domain: int = 0, flags: int = 0) -> bytes:
    return struct.pack("<QIB", number, domain, flags) + bytes(6)


def gtid_list(*gtids: tuple[int, int, int]) -> bytes:
    return len(gtids).to_bytes(4, "little") + b"".join(struct.pack("<IIQ", *gtid) for gtid in gtids)


def log(events: Iterable[tuple[int, bytes]], *, checksum: int = 1, server: int = 7, in_use: bool = False) -> bytes:
    """A file with these events, one a second."""
    described = struct.pack("<H50sIB", 4, b"8.0.36", 0, 19) + bytes(40) + bytes([checksum])
    data = MAGIC
    for time, (kind, body) in enumerate([(FORMAT, described), *events], 1000):
        tail = 4 if checksum or kind == FORMAT else 0
        end = len(data) + 19 + len(body) + tail
        header = struct.pack("<IBIIIH", time, kind, server, end - len(data), end, 0)
        seal = crc32(header + body).to_bytes(4, "little") if tail else b""
        if in_use and kind == FORMAT:
            header = header[:17] + b"\1" + header[18:]
        data += header + body + seal
    return data


def transactions(data: bytes) -> tuple[list[Transaction], Transactions]:
    made, reader = Transactions(), EventReader("binlog.000001")
    found = [made.add(event) for event in reader.feed(data)]
    return [done for done in found if done is not None], made


@pytest.mark.parametrize("checksum", [0, 1])
def test_transactions_of_mysql(checksum: int) -> None:
    groups: list[list[tuple[int, bytes]]] = [
        [(PREVIOUS, bytes(8))],
        [(GTID, gtid(5)), (QUERY, query("BEGIN")), (ROWS, b"rows"), (ROWS, b"more"), (XID, bytes(8))],
        [(GTID, gtid(6)), (QUERY, query("DROP TABLE item"))],
        [(GTID, gtid(7)), (QUERY, query("BEGIN")), (QUERY, query("SAVEPOINT a")), (QUERY, query("COMMIT"))],
        [(GTID, gtid(8)), (PAYLOAD, b"compressed")],
        [(ANONYMOUS, gtid(0)), (QUERY, query("XA START X'01'")), (ROWS, b"rows"), (38, prepare(b"\x01", b"\xab"))],
        [(ANONYMOUS, gtid(0)), (QUERY, query("XA COMMIT X'01',X'AB',1"))],
        [(ROTATE, b"binlog.000002")],
    ]
    data = log([event for group in groups for event in group], checksum=checksum)
    found, made = transactions(data)
    assert [done.gtid for done in found] == [
        *(f"3e11fa47-71ca-11e1-9e33-c80aa9429562:{number}" for number in (5, 6, 7, 8)), None, None,
    ]  # fmt: skip
    assert [done.time for done in found] == [1006, 1008, 1012, 1014, 1018, 1020]
    assert [done.sql for done in found[:2]] == [b"", b"DROP TABLE item"]
    assert [done.prepares for done in found] == [""] * 4 + ["x'01',x'ab',1", ""]
    assert [done.completes for done in found] == [""] * 5 + ["x'01',x'ab',1"]
    assert all(before.end == after.start for before, after in pairwise(found))
    assert (made.boundary, made.position()) == (len(data), None)


def test_transactions_of_mariadb_and_how_far_they_come() -> None:
    events = [
        (GTID_LIST, gtid_list((0, 3, 40), (0, 7, 41), (9, 3, 2))),
        (MARIADB_GTID, mariadb_gtid(42, flags=1)),
        (QUERY, query("CREATE TABLE item (i INT)")),
        (MARIADB_GTID, mariadb_gtid(3, domain=9)),
        (ROWS, b"rows"),
        (QUERY, query("ROLLBACK TO a")),
        (XID, bytes(8)),
    ]
    found, made = transactions(log(events))
    assert [done.gtid for done in found] == ["0-7-42", "9-7-3"]
    assert made.position() == frozenset({"0-7-42", "9-7-3"})
    assert transactions(log(events[:1]))[1].position() == frozenset({"0-7-41", "9-3-2"})
    cut, half = transactions(log(events[:-1]))  # the last one waits for its commit
    assert len(cut) == 1
    assert half.boundary == cut[0].end


@given(st.lists(st.integers(1, 30), max_size=30))
def test_events_come_out_the_same_however_they_go_in(lengths: list[int]) -> None:
    data = log([(GTID, gtid(1)), (QUERY, query("BEGIN")), (ROWS, bytes(50)), (XID, bytes(8))], in_use=True)
    whole = list(EventReader("f").feed(data))
    reader, at = EventReader("f"), 0
    found: list[Event] = []
    for length in [*lengths, len(data)]:
        found += reader.feed(data[at : at + length])
        at += length
        assert reader.position <= min(at, len(data))
    assert (found, reader.position, reader.is_between) == (whole, len(data), True)


def test_what_is_no_binary_log_is_refused_and_not_read_on() -> None:
    good = log([(XID, bytes(8))])
    cases = {
        b"\xfdbin" + good[4:]: "does not begin",
        log([(XID, bytes(8))], checksum=9): "unknown kind",
        MAGIC + good[20:]: "bytes|elsewhere|describe",
        good[:13] + (5).to_bytes(4, "little") + good[17:]: "has 5 bytes",
        good[:13] + (2**31).to_bytes(4, "little") + good[17:]: "has 2147483648 bytes",
        MAGIC + log([(XID, bytes(8))], checksum=0)[124:]: "elsewhere",
        good + good[4:]: "elsewhere",
    }
    for data, cause in cases.items():
        with pytest.raises(CorruptedSource, match=cause):
            list(EventReader("f").feed(data))
    with pytest.raises(CorruptedSource, match="cannot be read"):
        transactions(log([(QUERY, b"short")], checksum=0))


def test_positions_are_read_and_compare_as_the_log_goes_on() -> None:
    assert parse_position(" mysql-bin.1000042:1234 ") == Position(1000042, 1234, "mysql-bin")
    assert str(Position(42, 4, "binlog")) == "binlog.000042:4"
    assert position_at("binlog.000009", 99) < position_at("binlog.000010", 4)
    with pytest.raises(InvalidRequest, match="no file of a binary log"):
        position_at("binlog.index", 4)


def test_one_transaction_is_named_and_not_several() -> None:
    assert parse_gtid(" 0-1-4711") == "0-1-4711"
    assert parse_gtid("3E11FA47-71CA-11E1-9E33-C80AA9429562:23") == "3e11fa47-71ca-11e1-9e33-c80aa9429562:23"
    for text in ("", "0-1", "0-1-4,1-1-7", "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"):
        with pytest.raises(InvalidRequest, match="not the name of one transaction"):
            parse_gtid(text)
