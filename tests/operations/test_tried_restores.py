"""Restores that are tried: files compared, databases looked into, programs asked; and nothing is left of them."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import msgspec
import pytest

from backstay.core.clock import SystemClock
from backstay.core.events import Event, EventSink, Progress, ignore
from backstay.errors import CorruptedBackup, InsufficientSpace, Interrupted
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.verify.answers import answer, is_true
from backstay.operations.verify.rehearsal import SCRATCH, rehearse_snapshot
from backstay.operations.verify.run import VerifyOptions, VerifyReport, run_verify
from backstay.operations.verify.trial import Cell, Question, Rehearsed, Rows, Trial, TriedCommand
from backstay.repository.repository import Environment, Repository
from backstay.repository.snapshots.store import Manifest
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.sources.scratch import Scratch
from backstay.sources.source import Source
from backstay.sources.sqlite.source import sqlite_source
from backstay.storage.memory import MemoryStorage
from tests.crash.small_world import SECRET


@pytest.fixture
def repository() -> Iterator[Repository]:
    with Repository.create(MemoryStorage(), SECRET, environment=Environment(threads=1)) as repository:
        yield repository


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    found = tmp_path / "tree"
    found.mkdir()
    (found / "one").write_text("one")
    (found / "two").write_text("two")
    return found


def snapshot(repository: Repository, source: Source, name: str | None = None) -> Manifest:
    made = run_backup(repository, source, BackupOptions(host="host", name=name)).snapshot
    assert made is not None
    return repository.snapshots.get(made)


def files(repository: Repository, tree: Path, name: str | None = None) -> Manifest:
    return snapshot(repository, FilesystemSource([os.fsencode(tree)], filters=Filters(()), clock=SystemClock()), name)


def database(repository: Repository, place: Path) -> Manifest:
    path = place / "app.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript("create table t(i int, v text); insert into t values (1, 'one'), (2, null)")
    return snapshot(repository, sqlite_source(os.fsencode(path), scratch=place), "app")


def tried(repository: Repository, manifest: Manifest, place: Path, trial: Trial | None = None) -> Rehearsed:
    scratch = place / "scratch"
    scratch.mkdir(exist_ok=True)
    done = rehearse_snapshot(repository, manifest, scratch, trial or Trial(), events=ignore)
    assert list(scratch.iterdir()) == []  # nothing is left
    return done


def outcomes(done: Rehearsed) -> dict[str, tuple[str, str]]:
    return {outcome.check: (outcome.status, outcome.details) for outcome in done.outcomes}


def test_files_are_restored_and_compared(repository: Repository, tree: Path, tmp_path: Path) -> None:
    done = tried(repository, files(repository, tree), tmp_path)
    assert done.ok
    assert (done.files, done.compared, done.bytes) == (2, 2, 6)
    assert [outcome.check for outcome in done.outcomes] == ["restore", "compare"]
    assert 0 < done.usable_s <= done.duration_s


def test_what_cannot_be_restored_fails_it(repository: Repository, tree: Path, tmp_path: Path) -> None:
    manifest = files(repository, tree)
    for info in list(repository.backend.list("packs/")):
        repository.backend.delete(info.name)
    with Repository.open(repository.backend, SECRET, environment=Environment(threads=1)) as again:
        done = tried(again, manifest, tmp_path)
    assert not done.ok
    assert done.outcomes[0].status == "failed"


def test_programs_find_the_files(repository: Repository, tree: Path, tmp_path: Path) -> None:
    manifest = files(repository, tree, "tree")
    inside = f"{{scratch}}{tree}/one"
    trial = Trial(
        commands=(
            TriedCommand(words=("grep", "-q", "one", inside)),
            TriedCommand(words=("sh", "-c", f'test "$(cat "$BACKSTAY_SCRATCH{tree}/two")" = two')),
            TriedCommand(words=("sh", "-c", f"test $BACKSTAY_SNAPSHOT = {manifest.id}"), name="tree"),
            TriedCommand(words=("sh", "-c", "echo too bad >&2; exit 3")),
            TriedCommand(words=("sleep", "60"), patience_s=0.2),
            TriedCommand(words=("no-such-program",)),
            TriedCommand(words=("false",), name="another"),
        ),
        environ={"PATH": os.environ["PATH"]},
    )
    done = tried(repository, manifest, tmp_path, trial)
    assert [outcome.status for outcome in done.outcomes[2:]] == ["ok", "ok", "ok", "failed", "failed", "failed"]
    assert "too bad" in done.outcomes[5].details
    assert "did not end" in done.outcomes[6].details


def stop_at(check: str) -> EventSink:
    def sink(event: Event) -> None:
        if isinstance(event, Progress) and event.current.startswith(check):
            raise Interrupted("interrupted")

    return sink


def test_who_stops_a_rehearsal_stops_its_command_and_leaves_nothing(
    repository: Repository, tree: Path, tmp_path: Path
) -> None:
    manifest, scratch, told = files(repository, tree), tmp_path / "scratch", tmp_path / "told"
    command = TriedCommand(words=("sh", "-c", f"pwd > {told}; sleep 60 & echo $! >> {told}; wait"))
    with pytest.raises(Interrupted):
        rehearse_snapshot(repository, manifest, scratch, Trial(commands=(command,)), events=stop_at("command sh"))
    assert list(scratch.iterdir()) == []
    ran_in, pid = told.read_text().split()
    assert Path(ran_in).parent.parent == scratch
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text().split()[2] != "Z":
        time.sleep(0.01)


@pytest.mark.parametrize("ends", ["somebody asks", "its time is up"])
def test_a_query_without_end_is_ended(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    manifest, scratch = database(repository, tmp_path), tmp_path / "scratch"
    endless = "with recursive c(x) as (select 1 union all select x + 1 from c) select count(*) from c"
    trial = Trial(questions=(Question(sql=endless),))
    if ends == "somebody asks":
        with pytest.raises(Interrupted):
            rehearse_snapshot(repository, manifest, scratch, trial, events=stop_at("query"))
    else:
        monkeypatch.setattr("backstay.operations.verify.rehearsal.QUESTION_PATIENCE_S", 0.01)
        done = rehearse_snapshot(repository, manifest, scratch, trial, events=ignore)
        assert outcomes(done)[f"query {endless}"] == ("failed", "it did not end within 0.01 s")
    assert list(scratch.iterdir()) == []


def test_broken_foreign_keys_are_a_warning(repository: Repository, tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "create table a(i integer primary key); create table b(a references a); insert into b values (7)"
        )
    manifest = snapshot(repository, sqlite_source(os.fsencode(path), scratch=tmp_path), "app")
    report = run_verify(repository, None, VerifyOptions(rehearse=tmp_path / "scratch"))
    assert report.ok
    (found,) = report.findings
    assert (found.severity, found.subject) == ("warning", f"snapshot {manifest.id}: foreign_key_check")
    assert found.message == "1 broken foreign key in b, as in the database itself"
    assert outcomes(report.rehearsals[0])["integrity_check"] == ("ok", "ok")


def test_the_next_rehearsal_removes_what_a_killed_one_left_and_nothing_else(
    repository: Repository, tree: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    dead, others = scratch / f"{SCRATCH}-dead", scratch / "rehearsal-notes"
    for place in (dead / "files", others):
        place.mkdir(parents=True)
    with Scratch(scratch / "below", SCRATCH) as alive:
        place = alive.path.rename(scratch / alive.path.name)
        rehearse_snapshot(repository, files(repository, tree), scratch, Trial(), events=ignore)
        assert {*scratch.iterdir()} == {others, place, scratch / "below"}
        place.rename(alive.path)


def test_a_program_gets_no_more_environment_than_it_is_given(
    repository: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKSTAY_PASSWORD", "canary")
    trial = Trial(
        commands=(TriedCommand(words=("sh", "-c", 'test -z "$BACKSTAY_PASSWORD"')),),
        environ={"PATH": os.environ["PATH"]},
    )
    assert tried(repository, files(repository, tree), tmp_path, trial).ok


def test_a_database_is_checked_and_asked(repository: Repository, tmp_path: Path) -> None:
    trial = Trial(
        questions=(
            Question(sql="select count(*) = 2 from t"),
            Question(sql="select i, v from t order by i", expect=((1, "one"), (2, None))),
            Question(sql="select count(*) from t", expect=((3,),)),
            Question(sql="select * from nowhere"),
            Question(sql="delete from t"),
            Question(sql="select false", name="another"),
        )
    )
    done = tried(repository, database(repository, tmp_path), tmp_path, trial)
    found = list(outcomes(done).values())[2:]
    assert [status for status, _ in found] == ["ok", "ok", "ok", "ok", "failed", "failed", "failed"]
    assert found[4][1] == "2, not 3"
    assert "nowhere" in found[5][1]


def test_a_database_that_is_broken_inside_fails_it(repository: Repository, tree: Path, tmp_path: Path) -> None:
    path = tree / "app.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "create table t(v text); create index i on t(v);"
            "with recursive n(x) as (select 1 union all select x + 1 from n where x < 2000) "
            "insert into t select x from n"
        )
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
    path.write_bytes(data)
    manifest = files(repository, tree)
    as_database = msgspec.structs.replace(manifest, source="sqlite:x", paths=(os.fsencode(path),))
    done = tried(repository, as_database, tmp_path)
    assert done.outcomes[2].check == "integrity_check"
    assert done.outcomes[2].status == "failed"


def test_a_question_about_plain_files_is_told_to_be_out_of_place(
    repository: Repository, tree: Path, tmp_path: Path
) -> None:
    done = tried(repository, files(repository, tree), tmp_path, Trial(questions=(Question(sql="select 1"),)))
    assert outcomes(done)["query select 1"][0] == "skipped"
    assert done.ok


@pytest.mark.parametrize(
    ("rows", "expect", "ok"),
    [
        ([["t"]], None, True),
        ([[1]], None, True),
        ([[True]], None, True),
        ([["f"]], None, False),
        ([[0]], None, False),
        ([[None]], None, False),
        ([], None, False),
        ([[1], [1]], None, False),
        ([], (), True),
        ([["12"]], ((12,),), True),
        ([["t"]], ((True,),), True),
        ([["1"], ["2"]], ((2,), (1,)), False),
        ([[None]], (("",),), False),
    ],
)
def test_answers_are_compared_as_text(rows: list[list[Cell]], expect: Rows | None, ok: bool) -> None:
    assert answer(Question(sql="select", expect=expect), lambda _: rows)[0] is ok


def verified(repository: Repository, place: Path, *commands: str) -> VerifyReport:
    trial = Trial(commands=tuple(TriedCommand(words=("sh", "-c", text)) for text in commands))
    return run_verify(repository, options=VerifyOptions(rehearse=place / "scratch", trial=trial))


def test_a_verification_finds_what_a_rehearsal_finds(repository: Repository, tree: Path, tmp_path: Path) -> None:
    manifest = files(repository, tree)
    good = verified(repository, tmp_path, "true")
    assert good.ok
    assert [one.snapshot for one in good.rehearsals] == [manifest.id]
    assert all(result.duration_s >= 0 for result in good.results)
    bad = verified(repository, tmp_path, "false")
    assert not bad.ok
    (finding,) = bad.findings
    assert (finding.check, finding.subject) == ("rehearsal", f"snapshot {manifest.id}: command sh -c false")


@pytest.mark.parametrize("text", ["t", "TRUE", "1", "-1", "12", "0.5", "1e3", "1" * 400])
def test_an_answer_that_says_yes(text: str) -> None:
    assert is_true(text)


@pytest.mark.parametrize(
    "text", ["", " ", "f", "no", "on", "0", "-0", "0.0", "--1", "nan", "1 ", "\u00b2", "nothing is right"]
)
def test_an_answer_that_does_not(text: str) -> None:
    assert not is_true(text)


def test_a_question_that_nothing_answers_is_a_finding(repository: Repository, tree: Path, tmp_path: Path) -> None:
    def messages(*names: str | None) -> list[str]:
        trial = Trial(questions=tuple(Question(sql="select 1", name=name) for name in names))
        options = VerifyOptions(rehearse=tmp_path / "scratch", trial=trial)
        return [f"{one.subject}: {one.message}" for one in run_verify(repository, None, options).findings]

    files(repository, tree, "tree")
    nobody = "query select 1: nothing that was restored could answer it"
    assert messages(None) == [nobody]
    assert messages("tree") == [nobody]
    assert messages("another") == []  # it is for a snapshot that was not tried
    database(repository, tmp_path)
    assert messages(None) == []


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("backstay.sources.scratch.tempfile.mkdtemp", OSError(errno.ENOSPC, "No space left on device")),
        ("backstay.operations.verify.rehearsal.run_restore", InsufficientSpace("cannot write one", cause="disk full")),
    ],
)
def test_a_rehearsal_without_room_says_so_and_nothing_about_the_backup(
    repository: Repository, tree: Path, tmp_path: Path, place: str, error: Exception
) -> None:
    manifest = files(repository, tree)
    few = VerifyOptions(rehearse=tmp_path / "scratch")
    with patch(place, side_effect=error):
        report = run_verify(repository, [manifest.id], few)
        damaged = run_verify(repository, [manifest.id], replace(few, checks=("size",), min_bytes=1 << 30))
    assert isinstance(report.failure, InsufficientSpace)
    assert "for want of room" in report.failure.cause
    assert "another directory" in report.failure.hint
    assert [result.check for result in report.results if not result.ok] == ["rehearsal"]
    assert isinstance(damaged.failure, CorruptedBackup)
