"""Plan a recovery of MySQL or MariaDB: which dump, which part of the binary log behind it, and what will be there.

Nothing is written. All of the log on the way is read and checked, so that damage is found before a server is touched.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from backstay.errors import (
    CorruptedBackup,
    IdentityMismatch,
    InvalidRequest,
    NotFound,
    TargetBeforeSnapshot,
    TargetNotCovered,
    WalGap,
)
from backstay.operations.mysql.binlog_archive import BinlogArchive, StoredLog
from backstay.operations.mysql.dumps import MysqlDump, mysql_dumps
from backstay.operations.mysql.windows import moment_of, reach, require_archive
from backstay.repository.repository import Repository
from backstay.repository.snapshots.selectors import LATEST, choose
from backstay.sources.mysql.binlog import Position, Transaction, Transactions

_WINDOWS: Final = "`backstay mysql windows` shows what can be reached"
_ACCOUNTS: Final = re.compile(
    rb"\s*(?:(?:CREATE|ALTER|DROP|RENAME)\s+(?:OR\s+REPLACE\s+)?(?:USER|ROLE)|GRANT|REVOKE|SET\s+(?:PASSWORD|DEFAULT\s+ROLE))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BinlogTarget:
    """Where a recovery ends: before the transactions of the second of a time, before a position, behind a GTID, or
    where the stored log does.
    """

    kind: Literal["time", "position", "gtid", "latest"] = "latest"
    time: datetime | None = None
    position: Position | None = None
    gtid: str = ""

    def __str__(self) -> str:
        if self.time is not None:
            return self.time.isoformat(sep=" ")
        return str(self.position or self.gtid or "the end of what is stored")

    @property
    def second(self) -> int:
        """Transactions of this second and later ones are left out: a binary log has whole seconds."""
        assert self.time is not None
        return int(self.time.timestamp())


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPart:
    """What is replayed of one file: from byte `start` to before `end`."""

    log: StoredLog
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """A dump, and what of the log follows it. `last_time` is that of the last transaction, None if there is none.

    `accounts` counts the statements about accounts and their rights, which rely on accounts that no dump restores,
    `left_out` the transactions behind the end, in its file, with a time before the target: a clock was ahead there.
    """

    name: str
    archive: BinlogArchive
    dump: MysqlDump
    target: BinlogTarget
    parts: tuple[LogPart, ...]
    transactions: int
    last_time: datetime | None
    accounts: int
    left_out: int

    @property
    def end(self) -> Position:
        """Where the recovery ends."""
        if not self.parts:
            return self.dump.position
        return self.parts[-1].log.start._replace(offset=self.parts[-1].end)

    @property
    def bytes(self) -> int:
        """Of the log that is replayed."""
        return sum(part.end - part.start for part in self.parts)


def plan_replay(repository: Repository, name: str, snapshot: str, target: BinlogTarget) -> ReplayPlan:
    """Decide without writing: `snapshot` is `latest`, an id or its beginning.

    Raises NotFound, InvalidRequest, TargetNotCovered with what is covered, WalGap with what is missing,
    IdentityMismatch for a dump of another server, CorruptedBackup.
    """
    archive = require_archive(repository, name)
    dumps = mysql_dumps(repository, name, on_damage=lambda _name, _error: None)
    if snapshot != LATEST:
        chosen = choose([dump.manifest for dump in dumps], snapshot, now=repository.clock.now())
        dumps = [dump for dump in dumps if dump.snapshot == chosen.id]
    whole = [dump for dump in dumps if dump.is_whole]
    if not whole:
        raise _no_dump(name, dumps)
    return _Planner(archive, name, whole, target).run()


def _no_dump(name: str, dumps: Sequence[MysqlDump]) -> Exception:
    hint = f"make a dump of all: `backstay backup --source mysql://user@host/ --name {name}`"
    if dumps:
        return InvalidRequest(
            f"snapshot {dumps[-1].snapshot} is a dump of one database, and the log is one of the whole server",
            cause="statements for one database cannot be told apart from the others with certainty",
            hint=hint,
        )
    return NotFound(
        f"there is no dump of {name} that tells its position in the binary log",
        cause="none was made under this name, or all were deleted",
        hint=hint,
    )


@dataclass(frozen=True, slots=True)
class _Passed:
    """What lies on the way; `prepared` are the XA transactions that wait for their end."""

    transactions: int = 0
    last: int = 0
    accounts: int = 0
    prepared: frozenset[str] = frozenset()

    def with_(self, passed: Transaction) -> _Passed:
        about_accounts = bool(_ACCOUNTS.match(passed.sql))
        prepared = self.prepared - {passed.completes} | ({passed.prepares} - {""})
        return _Passed(self.transactions + 1, passed.time, self.accounts + about_accounts, prepared)


class _PreparedBefore(Exception):
    """The log ends an XA transaction that was prepared before the dump, which has nothing of it."""

    def __init__(self, error: TargetNotCovered) -> None:
        super().__init__(str(error))
        self.error = error


class _Planner:
    def __init__(self, archive: BinlogArchive, name: str, dumps: Sequence[MysqlDump], target: BinlogTarget) -> None:
        self._archive, self._name, self._dumps, self._target = archive, name, dumps, target
        self._left_out = 0

    def run(self) -> ReplayPlan:
        find = {"time": self._at_time, "position": self._at_position, "gtid": self._at_gtid, "latest": self._at_end}
        end = find[self._target.kind]()
        before = [dump for dump in self._dumps if dump.position <= end]
        if not before:
            raise self._too_early()
        refused: _PreparedBefore | None = None
        for dump in reversed(before):
            try:
                return self._plan(dump, end)
            except _PreparedBefore as error:
                refused = refused or error
            except WalGap:
                if refused is None:
                    raise
                break  # nothing older leads over it
        assert refused is not None
        raise refused.error

    # -- where the target lies

    def _at_end(self) -> Position:
        dump = self._dumps[-1]
        run = self._run(dump)
        if self._archive.gap_behind(run) is not None:
            raise self._gap(run, "more of the log lies behind it")
        end, _ = reach(self._archive, run[-1])
        return max(end, dump.position)

    def _at_position(self) -> Position:
        position = self._target.position
        assert position is not None
        bases = sorted({log.start.base for log in self._archive.logs.values()})
        if position.base not in bases:
            raise InvalidRequest(
                f"{position.file} is no file of this log", cause=f"its files are called {', '.join(bases)}"
            )
        return position

    def _at_time(self) -> Position:
        """Before the first transaction of the second, or at the end of a file before which none is.

        Nothing in a file is later than the first event of the next one.
        """
        logs = [log for log in self._archive.logs.values() if log.is_begun]
        at = bisect_left(logs, self._target.second, key=self._began) - 1
        if at < 0:
            raise self._too_early()
        latest, found = 0, Transactions()
        end: Position | None = None
        for event in self._archive.events(logs[at]):
            done = found.add(event)
            if done is not None and end is None and done.time >= self._target.second:
                end = logs[at].start._replace(offset=done.start)
            self._left_out += done is not None and end is not None and done.time < self._target.second
            latest = max(latest, event.time) if event.end == found.boundary else latest
        if end is not None:
            return end
        if latest >= self._target.second or (logs[at].is_complete and self._follows(logs, at)):
            return logs[at].start._replace(offset=found.boundary)
        run = [logs[at]]
        if self._archive.gap_behind(run) is not None:
            raise self._gap(run, f"{self._target} does not lie before it")
        raise self._not_covered(logs[at].start._replace(offset=found.boundary), moment_of(latest))

    def _began(self, log: StoredLog) -> int:
        """The second in which a file was begun."""
        return next(self._archive.events(log)).time

    @staticmethod
    def _follows(logs: Sequence[StoredLog], at: int) -> bool:
        """Whether the file behind one is the next that the server wrote."""
        return at + 1 < len(logs) and logs[at + 1].start == logs[at].start._replace(number=logs[at].start.number + 1)

    def _at_gtid(self) -> Position:
        """Behind it; looked for behind the newest dump first, and so on to the oldest."""
        until: Position | None = None
        for dump in reversed(self._dumps):
            for log, done in self._transactions(self._run(dump, may_lack=True), dump.position, until):
                if done.gtid == self._target.gtid:
                    return log.start._replace(offset=done.end)
            until = dump.position
        end, latest = reach(self._archive, self._run(self._dumps[-1])[-1])
        raise TargetNotCovered(
            f"no transaction {self._target.gtid} is stored of {self._name} behind a dump",
            cause=f"the log reaches to {end}, {latest.isoformat(sep=' ')}",
            hint=_WINDOWS,
        )

    def _transactions(
        self, run: Sequence[StoredLog], start: Position, until: Position | None
    ) -> Iterator[tuple[StoredLog, Transaction]]:
        """Those that are whole between two positions."""
        for log in run:
            if until is not None and log.start > until:
                return
            found = Transactions()
            for event in self._archive.events(log):
                done = found.add(event)
                if done is not None and start <= log.start._replace(offset=done.start):
                    yield log, done

    # -- the way there

    def _plan(self, dump: MysqlDump, end: Position) -> ReplayPlan:
        run = self._run(dump)
        if end.number > run[-1].start.number:
            if self._archive.gap_behind(run) is None:
                raise self._not_covered(*reach(self._archive, run[-1]))
            raise self._gap(run, f"{self._target} does not lie before it")
        parts, passed = [], _Passed()
        for log in run[: end.number - run[0].start.number + 1]:
            start = dump.position.offset if log is run[0] else log.start.offset
            wanted = end.offset if log.start.number == end.number else None
            part, passed = self._part(log, start, wanted, dump, passed)
            parts.append(part)
        return ReplayPlan(
            name=self._name,
            archive=self._archive,
            dump=dump,
            target=self._target,
            parts=tuple(part for part in parts if part.end > part.start),
            transactions=passed.transactions,
            last_time=moment_of(passed.last) if passed.transactions else None,
            accounts=passed.accounts,
            left_out=self._left_out,
        )

    def _part(
        self, log: StoredLog, start: int, wanted: int | None, dump: MysqlDump, passed: _Passed
    ) -> tuple[LogPart, _Passed]:
        """A file on the way, read from its beginning. Both ends have to lie between transactions."""
        found = Transactions()
        is_first, seen_start = log.file == dump.position.file, start == log.start.offset
        last = log.start.offset
        for event in self._archive.events(log):
            if wanted is not None and event.end > wanted >= found.boundary and found.boundary != wanted:
                raise self._within(log, found.boundary, wanted)
            if wanted is not None and event.start >= wanted:
                break
            done = found.add(event)
            last = event.end
            if is_first and found.boundary == start:
                self._require_own(dump, found)
                seen_start = True
            if done is not None and done.start >= start:
                if done.completes and done.completes not in passed.prepared:
                    raise _PreparedBefore(self._prepared_before(dump, log.start._replace(offset=done.start), done))
                passed = passed.with_(done)
        if not seen_start and found.boundary < start:
            raise self._not_covered(log.start._replace(offset=found.boundary), None)
        if not seen_start:
            raise CorruptedBackup(
                f"snapshot {dump.snapshot} tells a position that is none", cause=f"{dump.position} is within an event"
            )
        if wanted is not None and found.boundary < wanted:
            if last >= wanted:
                raise self._within(log, found.boundary, wanted)
            raise self._not_covered(log.start._replace(offset=found.boundary), None)
        return LogPart(log=log, start=start, end=found.boundary), passed

    def _require_own(self, dump: MysqlDump, found: Transactions) -> None:
        """See that a dump is of the server whose log this is, by what MariaDB had logged at its position."""
        logged = found.position()
        if dump.gtids is not None and logged is not None and dump.gtids != logged:
            raise IdentityMismatch(
                f"snapshot {dump.snapshot} is not of the server whose binary log is stored as {self._name}",
                cause=f"at {dump.position} the log has come to {','.join(sorted(logged)) or 'nothing'}, "
                f"and the dump to {','.join(sorted(dump.gtids)) or 'nothing'}",
                hint="give dumps and receiver of one server a --name of their own",
            )

    def _run(self, dump: MysqlDump, *, may_lack: bool = False) -> list[StoredLog]:
        run = self._archive.run(dump.position.file)
        if not run and not may_lack:
            raise WalGap(
                f"the binary log of {self._name} at snapshot {dump.snapshot} is not stored",
                cause=f"{dump.position.file} is missing",
                hint=_WINDOWS,
            )
        return run

    # -- what is told

    def _too_early(self) -> TargetBeforeSnapshot:
        first = self._dumps[0]
        return TargetBeforeSnapshot(
            f"{self._target} lies before what can be recovered of {self._name}",
            cause=f"the first dump, {first.snapshot}, was begun at {first.time.isoformat(sep=' ', timespec='seconds')} "
            f"and lies at {first.position}",
            hint=f"choose a later target; {_WINDOWS}",
        )

    def _not_covered(self, end: Position, latest: datetime | None) -> TargetNotCovered:
        last = f", and the last event in it is of {latest.isoformat(sep=' ')}" if latest else ""
        return TargetNotCovered(
            f"{self._target} is not covered by the stored binary log of {self._name}",
            cause=f"it reaches to {end}{last}",
            hint="choose an earlier target, or none for all that is stored; later events have to be received first",
        )

    def _prepared_before(self, dump: MysqlDump, position: Position, done: Transaction) -> TargetNotCovered:
        return TargetNotCovered(
            f"{self._target} cannot be reached from snapshot {dump.snapshot} of {self._name}",
            cause=f"at {position} ends the XA transaction {done.completes}, which was prepared before the dump: "
            "it has no rows of it",
            hint=f"choose an older dump, made before it was prepared, or a target before {position}: {_WINDOWS}",
        )

    def _within(self, log: StoredLog, boundary: int, wanted: int) -> InvalidRequest:
        return InvalidRequest(
            f"{log.file}:{wanted} lies within a transaction",
            cause=f"the transaction begins at {log.file}:{boundary}",
            hint=f"give that position, or one behind the transaction; `mariadb-binlog {log.file}` lists them",
        )

    def _gap(self, run: Sequence[StoredLog], why: str) -> WalGap:
        gap = self._archive.gap_behind(list(run))
        assert gap is not None
        missing = gap.first if gap.first == gap.last else f"{gap.first} to {gap.last}"
        return WalGap(
            f"the binary log of {self._name} has a gap behind {run[-1].file}",
            cause=f"{missing} is missing or not complete, and {why}",
            hint=f"choose a target before the gap or a dump behind it: {_WINDOWS}",
        )
