"""Plans of recoveries from dumps and a binary log that were made by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from backstay.core.ids import new_ulid
from backstay.errors import TargetNotCovered
from backstay.operations.mysql.plan import BinlogTarget, plan_replay
from backstay.repository.repository import Repository
from backstay.repository.wal.slices import slice_name
from backstay.sources.mysql.binlog import position_at
from tests.mysql.receivers import NAME
from tests.mysql.test_binlog import ANONYMOUS, QUERY, ROWS, XID, gtid, log, prepare, query, transactions
from tests.operations.copies import back_up

FILE, SYSTEM = "binlog.000001", 7
PREPARED = [(ANONYMOUS, gtid(0)), (QUERY, query("XA START X'78',X'',1")), (ROWS, b"rows"), (38, prepare(b"x", b""))]
DONE = [(ANONYMOUS, gtid(0)), (QUERY, query("XA COMMIT X'78',X'',1"))]
OTHER = [(ANONYMOUS, gtid(0)), (QUERY, query("BEGIN")), (ROWS, b"rows"), (XID, bytes(8))]


@dataclass
class Made:
    """A log, where its transactions end, and the dumps that were made behind some of them."""

    repository: Repository
    source: Path
    ends: list[int]

    def dump(self, behind: int) -> str:
        """The snapshot of a dump behind that many transactions."""
        files = self.repository.snapshots.get(back_up(self.repository, self.source))
        ident = new_ulid(self.repository.clock.now_ns(), self.repository.environment.random)
        told = {"binlog_file": FILE, "binlog_position": str(self.ends[behind - 1])}
        paths = (b"/mysql/host",)
        made = replace(files, id=ident, source="mysql:host", name=NAME, paths=paths, consistency=told, previous=None)
        self.repository.snapshots.commit(replace(made, previous_digest=None))
        return ident


@pytest.fixture
def made(repository: Repository, tmp_path: Path) -> Made:
    """Of four transactions the second is prepared only, and ends with the fourth."""
    data = log([*OTHER, *PREPARED, *OTHER, *DONE])
    repository.wal.bind(NAME, SYSTEM, repository.clock)
    repository.wal.store_part(SYSTEM, slice_name(FILE, 0), 0, data)
    (tmp_path / "databases.sql").write_text("-- nothing")
    return Made(repository, tmp_path, [done.end for done in transactions(data)[0]])


def test_a_dump_within_a_prepared_transaction_is_passed_over_for_an_older_one(made: Made) -> None:
    older, within = made.dump(1), made.dump(3)
    plan = plan_replay(made.repository, NAME, "latest", BinlogTarget())
    assert (plan.dump.snapshot, plan.transactions) == (older, 3)
    before = BinlogTarget(kind="position", position=position_at(FILE, made.ends[2]))
    assert plan_replay(made.repository, NAME, "latest", before).dump.snapshot == within


def test_the_end_of_a_transaction_that_no_dump_has_the_beginning_of_is_refused(made: Made) -> None:
    within = made.dump(2)
    for snapshot in ("latest", within):
        with pytest.raises(TargetNotCovered, match=f"from snapshot {within}") as refused:
            plan_replay(made.repository, NAME, snapshot, BinlogTarget())
        assert f"at {FILE}:{made.ends[2]} ends the XA transaction x'78',x'',1" in refused.value.cause
        assert "older dump" in refused.value.hint
