"""The audit log: one chain whoever writes it, in which nothing can be changed, removed, swapped or inserted unseen."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from backstay.catalog.audit import AuditFilters, AuditLog
from backstay.catalog.audit_chain import FIELDS, FIRST, entry_hash
from backstay.catalog.audit_verifying import AuditVerdict, verify
from backstay.catalog.checkpoints import Checkpoint, CheckpointFile, add_checkpoint, audit_signer
from backstay.catalog.database import Catalog
from backstay.catalog.models import AuditCheckpoint, AuditEntry, User
from backstay.errors import CatalogUnavailable, InvalidRequest
from backstay.testing.clock import FakeClock
from backstay.trust.signing import Signer
from tests.synced import Synced

SIGNER = Signer(b"\1" * 32)
ENTRIES = 12


def fill(catalog: Catalog, clock: FakeClock, entries: int = ENTRIES) -> AuditLog:
    log = AuditLog(catalog, clock)
    for number in range(entries):
        clock.advance(60)
        log.note(
            actor="ann" if number % 2 else "bob",
            action="backup.create",
            object=f"/policy/p{number % 3}",
            outcome="deny" if number % 5 == 0 else "allow",
            details={"number": number, "share": number / 4, "words": ["é", None, True]},
            actor_details={"address": "10.0.0.1"},
        )
    return log


def test_a_log_that_nobody_touched_is_good(catalog: Catalog, clock: FakeClock) -> None:
    log = fill(catalog, clock)
    made = log.checkpoint(SIGNER)
    assert made is not None
    assert log.checkpoint(SIGNER) is None  # nothing new to sign
    verdict = log.verify(kept=[made], trusted=[SIGNER.public.hex()])
    assert verdict == AuditVerdict(
        ok=True, entries=ENTRIES, head=made.hash, checkpoints=2, keys=(SIGNER.public.hex(),), broken=None, problem=""
    )


def test_an_empty_log_is_good(sqlite_catalog: Catalog, clock: FakeClock) -> None:
    log = AuditLog(sqlite_catalog, clock)
    assert log.checkpoint(SIGNER) is None
    assert log.verify() == AuditVerdict(ok=True, entries=0, head=FIRST, checkpoints=0, keys=())


def test_pages_show_the_newest_first_and_filter(catalog: Catalog, clock: FakeClock) -> None:
    log = fill(catalog, clock)
    first = log.page(limit=5)
    assert [entry.seq for entry in first.items] == [12, 11, 10, 9, 8]
    assert [entry.seq for entry in log.page(limit=5, cursor=first.next).items] == [7, 6, 5, 4, 3]
    assert {entry.actor for entry in log.page(AuditFilters(actor="ann")).items} == {"ann"}
    assert [entry.seq for entry in log.page(AuditFilters(outcome="deny", object="/policy/p2")).items] == [6]
    since = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
    assert [entry.seq for entry in log.page(AuditFilters(since=since)).items] == [12, 11, 10]


def test_the_database_itself_refuses_changes(catalog: Catalog, clock: FakeClock) -> None:
    log = fill(catalog, clock, 2)
    log.checkpoint(SIGNER)
    words = ["UPDATE audit SET actor = 'eve'", "DELETE FROM audit", "UPDATE audit_checkpoints SET seq = 7"]
    words.append("DELETE FROM audit_checkpoints")
    if catalog.engine.dialect.name == "postgresql":
        words += ["TRUNCATE audit", "TRUNCATE audit_checkpoints"]
    for statement in words:
        with pytest.raises(IntegrityError, match="append-only"), catalog.session() as session:
            session.execute(text(statement))
    assert log.verify().ok


def test_an_entry_and_what_it_tells_are_there_or_neither(catalog: Catalog, clock: FakeClock) -> None:
    log = AuditLog(catalog, clock)

    def change(name: str) -> None:
        with catalog.session() as session:
            log.record(session, actor="ann", action="user.create", object=f"/user/{name}")
            session.add(User(id=name * 26, name=name, created_at=clock.now()))
            if name == "2":
                raise ZeroDivisionError

    change("1")
    with pytest.raises(ZeroDivisionError):
        change("2")
    change("3")
    assert [entry.object for entry in log.page().items] == ["/user/3", "/user/1"]


def test_a_session_that_was_taken_back_and_goes_on_tells_only_what_it_did(
    sqlite_catalog: Catalog, clock: FakeClock
) -> None:
    log = AuditLog(sqlite_catalog, clock)
    with Session(sqlite_catalog.engine) as session:
        log.record(session, actor="ann", action="a", object="undone")
        session.rollback()
        log.record(session, actor="ann", action="a", object="done")
        session.commit()
        session.commit()
    assert [entry.object for entry in log.page().items] == ["done"]


def test_many_writers_make_one_chain(new_url: Callable[[str], str], clock: FakeClock) -> None:
    for kind in ("sqlite", "postgresql"):
        url = new_url(kind)
        with Catalog.open(url) as one, Catalog.open(url) as other:

            def write(number: int, catalogs: tuple[Catalog, ...] = (one, other)) -> None:
                catalog = catalogs[number % 2]
                for turn in range(4):
                    with catalog.session() as session:
                        AuditLog(catalog, clock).record(session, actor=f"w{number}", action="a", object=str(turn))
                        AuditLog(catalog, clock).record(session, actor=f"w{number}", action="b", object=str(turn))

            with ThreadPoolExecutor(6) as threads:
                list(threads.map(write, range(6)))
            verdict = AuditLog(one, clock).verify()
            assert (verdict.ok, verdict.entries) == (True, 48)


def test_writers_that_hold_other_rows_wait_for_nobody_who_waits_for_them(
    new_url: Callable[[str], str], clock: FakeClock
) -> None:
    with Catalog.open(new_url("postgresql")) as catalog:
        with catalog.session() as session:
            session.add_all([User(id=name * 26, name=name, created_at=clock.now()) for name in "ab"])
        met = threading.Barrier(2)

        def rename(name: str) -> None:
            with catalog.session() as session:
                AuditLog(catalog, clock).record(session, actor=name, action="user.rename", object=name)
                met.wait(60)  # both have recorded and have changed nothing yet
                session.get_one(User, "a" * 26, with_for_update=True).version += 1

        with ThreadPoolExecutor(2) as threads:
            list(threads.map(rename, "ab"))
        assert AuditLog(catalog, clock).verify().entries == 2


# -- what somebody who can write into the database may try


@pytest.fixture(scope="module")
def tampered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """A log whose guards somebody took away."""
    clock = FakeClock()
    with Catalog.open(f"sqlite:///{tmp_path_factory.mktemp('tampered') / 'catalog.db'}") as catalog:
        catalog.migrate()
        log = fill(catalog, clock, ENTRIES // 2)
        log.checkpoint(SIGNER)
        fill(catalog, clock, ENTRIES // 2)
        with catalog.session() as session:
            for table in ("audit", "audit_checkpoints"):
                for what in ("update", "delete"):
                    session.execute(text(f"DROP TRIGGER {table}_no_{what}"))
        yield catalog


def after(catalog: Catalog, attack: Callable[[Session], object], kept: list[Checkpoint] | None = None) -> AuditVerdict:
    """What is found after an attack, which is taken back again."""
    with Session(catalog.engine) as session:
        attack(session)
        session.flush()
        found = verify(session, kept=kept or [])
        session.rollback()
    return found


def rewrite(session: Session, first: int) -> None:
    """Make all hashes from an entry on anew, as one would who wants to hide a change."""
    above = FIRST if first == 1 else session.scalars(select(AuditEntry.hash).where(AuditEntry.seq == first - 1)).one()
    for entry in session.scalars(select(AuditEntry).where(AuditEntry.seq >= first).order_by(AuditEntry.seq)):
        entry.prev_hash = above
        above = entry.hash = entry_hash({name: getattr(entry, name) for name in (*FIELDS, "prev_hash")})
    session.flush()


NUMBERS = st.integers(1, ENTRIES)
VALUES: dict[str, Any] = {
    "time": datetime(2030, 1, 1, tzinfo=UTC),
    "actor": "eve",
    "actor_details": {"address": "10.0.0.2"},
    "action": "backup.delete",
    "object": "/policy/other",
    "outcome": "error",
    "reason": "another",
    "details": {"number": 1, "share": 0.25, "words": ["é", None, False]},
    "prev_hash": "a" * 64,
    "hash": "b" * 64,
}


@pytest.mark.property
@given(seq=NUMBERS, field=st.sampled_from(sorted(VALUES)))
@settings(deadline=None, max_examples=60)
def test_a_changed_entry_is_found(tampered: Catalog, seq: int, field: str) -> None:
    change = update(AuditEntry).where(AuditEntry.seq == seq).values({field: VALUES[field]})
    verdict = after(tampered, lambda session: session.execute(change))
    assert (verdict.ok, verdict.broken, verdict.entries) == (False, seq, seq - 1)


@pytest.mark.property
@given(seq=st.integers(1, ENTRIES - 1), close=st.booleans())
@settings(deadline=None, max_examples=30)
def test_a_removed_entry_is_found(tampered: Catalog, seq: int, close: bool) -> None:
    def attack(session: Session) -> None:
        session.execute(delete(AuditEntry).where(AuditEntry.seq == seq))
        if close:  # so that no number is missing
            for number in range(seq + 1, ENTRIES + 1):
                session.execute(update(AuditEntry).where(AuditEntry.seq == number).values(seq=number - 1))

    assert after(tampered, attack).broken == seq


@pytest.mark.property
@given(one=NUMBERS, other=NUMBERS)
@settings(deadline=None, max_examples=40)
def test_swapped_entries_are_found(tampered: Catalog, one: int, other: int) -> None:
    def attack(session: Session) -> None:
        for before, behind in ((one, 1000), (other, one), (1000, other)):
            session.execute(update(AuditEntry).where(AuditEntry.seq == before).values(seq=behind))

    verdict = after(tampered, attack)
    assert verdict.broken == (None if one == other else min(one, other))


@pytest.mark.property
@given(seq=st.integers(0, ENTRIES + 1), copied=NUMBERS, linked=st.booleans())
@settings(deadline=None, max_examples=40)
def test_an_inserted_entry_is_found(tampered: Catalog, seq: int, copied: int, linked: bool) -> None:
    def attack(session: Session) -> None:
        row = session.execute(select(AuditEntry.__table__).where(AuditEntry.seq == copied)).mappings().one()
        above = session.scalar(select(AuditEntry.hash).where(AuditEntry.seq == seq - 1)) or FIRST
        for number in range(ENTRIES, max(seq, 1) - 1, -1):
            session.execute(update(AuditEntry).where(AuditEntry.seq == number).values(seq=number + 1))
        new = {**row, "seq": seq, "prev_hash": above if linked else row["prev_hash"]}
        session.execute(insert(AuditEntry).values({**new, "hash": entry_hash(new)}))

    verdict = after(tampered, attack)
    if seq == ENTRIES + 1 and linked:
        assert verdict.ok  # an entry that was appended as all are
    else:
        assert verdict.broken in {max(seq, 1), seq + 1}


@pytest.mark.property
@given(seq=st.integers(1, ENTRIES // 2))
@settings(deadline=None, max_examples=10)
def test_a_chain_that_was_made_anew_is_found_by_its_checkpoint(tampered: Catalog, seq: int) -> None:
    def attack(session: Session) -> None:
        session.execute(update(AuditEntry).where(AuditEntry.seq == seq).values(actor="eve"))
        rewrite(session, seq)

    verdict = after(tampered, attack)
    assert verdict.broken == ENTRIES // 2
    assert "made anew" in verdict.problem


def test_an_end_that_was_cut_off_is_found_by_a_checkpoint_that_was_kept(tampered: Catalog) -> None:
    with Session(tampered.engine) as session:
        kept = add_checkpoint(session, SIGNER, datetime(2026, 1, 2, tzinfo=UTC))
        session.rollback()  # whoever cuts the log takes the checkpoint in the database away too
    assert kept is not None

    def attack(session: Session) -> None:
        session.execute(delete(AuditEntry).where(AuditEntry.seq > 9))

    assert after(tampered, attack).ok
    verdict = after(tampered, attack, [kept])
    assert (verdict.broken, verdict.entries) == (10, 9)
    assert "ends with entry 9, but had 12" in verdict.problem


def test_the_whole_log_gone_is_found(tampered: Catalog) -> None:
    assert after(tampered, lambda session: session.execute(delete(AuditEntry))).broken == 1


def test_a_forged_checkpoint_is_found(tampered: Catalog) -> None:
    stored = select(AuditCheckpoint).limit(1)

    def forge(session: Session) -> None:
        session.scalars(stored).one().signature = "00" * 64

    assert "signature" in after(tampered, forge).problem

    def sign_anew(session: Session) -> None:
        session.execute(delete(AuditCheckpoint))
        add_checkpoint(session, Signer(b"\2" * 32), datetime(2026, 1, 2, tzinfo=UTC))

    with Session(tampered.engine) as session:
        sign_anew(session)
        session.flush()
        assert verify(session).ok  # anybody's signature, if no key is named
        assert "not trusted" in verify(session, trusted=[SIGNER.public.hex()]).problem
        session.rollback()


def test_values_that_no_column_holds_are_found_by_their_row(tampered: Catalog) -> None:
    for field, value in (("time", "'yesterday'"), ("details", "'{not json'"), ("details", "'[1e999]'")):
        words = text(f"UPDATE audit SET {field} = {value} WHERE seq = 4")
        verdict = after(tampered, partial(Session.execute, statement=words))
        assert (verdict.broken, verdict.entries) == (4, 3)


# -- what is written down


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ({"password": "hunter2"}, {"password": "***"}),
        ({"inner": [{"api_key": "hunter2", "token_id": "01x"}]}, {"inner": [{"api_key": "***", "token_id": "01x"}]}),
        ({"url": "postgresql://ann:hunter2@db/shop"}, {"url": "postgresql://ann:***@db/shop"}),
        ({"header": "Bearer hunter2hunter2"}, {"header": "Bearer ***"}),
        ({"token": None, "secret": ""}, {"token": None, "secret": ""}),
        ({"text": "password=hunter2 and more"}, {"text": "password=*** and more"}),
        ({"key": "-----BEGIN PRIVATE KEY-----\nhunter2"}, {"key": "***"}),
        ({"sent": "bst_hunter2hunter2hunter2"}, {"sent": "***"}),
        ({"large": 2**60, "tiny": 0.1, "many": 1e300, "none": float("inf")}, None),
        ({"odd": "a\0b\ud800c", "when": datetime(2026, 1, 1, tzinfo=UTC), "set": {"b", "a"}, "raw": b"\xff"}, None),
    ],
)
def test_secrets_are_left_out_and_everything_else_can_be_kept(
    catalog: Catalog, clock: FakeClock, given_: dict[str, Any], kept: dict[str, Any] | None
) -> None:
    log = AuditLog(catalog, clock)
    log.note(actor="ann", action="a", object="o", reason="of bst_hunter2hunter2", details=given_, actor_details=given_)
    (entry,) = log.page().items
    assert kept is None or entry.details == entry.actor_details == kept
    assert "hunter2" not in json.dumps([entry.details, entry.reason])
    assert log.verify().ok


def test_long_words_are_cut(catalog: Catalog, clock: FakeClock) -> None:
    log = AuditLog(catalog, clock)
    log.note(actor="a" * 1000, action="a", object="o" * 5000, reason="r" * 5000)
    (entry,) = log.page().items
    assert (len(entry.actor), len(entry.object), len(entry.reason)) == (255, 512, 5000)
    assert log.verify().ok


# -- checkpoints that are kept


def test_a_checkpoint_is_kept_as_text(tmp_path: Path, sqlite_catalog: Catalog, clock: FakeClock) -> None:
    log, file = fill(sqlite_catalog, clock, 3), CheckpointFile(tmp_path / "checkpoints")
    assert file.read() == []
    first = log.checkpoint(SIGNER)
    assert first is not None
    file.append(first)
    file.path.write_bytes(file.path.read_bytes() + b'{"seq": 9, "ti')  # a crash within a write
    clock.advance(5)
    fill(sqlite_catalog, clock, 1)
    second = log.checkpoint(SIGNER)
    assert second is not None
    file.append(second)
    assert file.read() == [first, second]
    assert all(one.is_genuine for one in file.read())
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_a_log_that_departs_from_what_was_kept_is_seen_at_one_look(
    sqlite_catalog: Catalog, tampered: Catalog, clock: FakeClock
) -> None:
    log = fill(sqlite_catalog, clock, 3)
    first = log.checkpoint(SIGNER)
    fill(sqlite_catalog, clock, 4)
    last = log.checkpoint(SIGNER)
    assert first is not None
    assert last is not None
    assert log.departure([]) == log.departure([last, first]) == log.departure([replace(last, seq=99)]) == ""
    fill(sqlite_catalog, clock, ENTRIES)
    newest = log.checkpoint(SIGNER)
    assert newest is not None
    other = AuditLog(tampered, clock)
    assert "saw another entry 7" in other.departure([last])
    assert "it has no entry 19" in other.departure([last, newest])


@pytest.mark.parametrize(
    "words",
    [
        "",
        "[]",
        "{}",
        "nonsense",
        '{"seq": 1}',
        '{"seq": 0, "time": "2026-01-01T00:00:00Z", "hash": "x", "public_key": "", "signature": ""}',
        json.dumps({"seq": 1, "time": "2026-01-01", "hash": "0" * 64, "public_key": "0" * 64, "signature": "0" * 128}),
        "[" * 5000,
    ],
)
def test_what_is_no_checkpoint_is_refused(words: str) -> None:
    with pytest.raises(InvalidRequest, match="is no checkpoint"):
        Checkpoint.of_text(words, where="FILE")


def test_a_checkpoint_with_another_number_is_not_genuine() -> None:
    body = {"seq": 1, "time": "2026-01-01T00:00:00Z", "hash": "0" * 64, "public_key": SIGNER.public.hex()}
    assert not Checkpoint.of_text(json.dumps({**body, "signature": "0" * 128}), where="FILE").is_genuine


def test_the_key_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "audit.key"
    with ThreadPoolExecutor(4) as threads:
        signers = list(threads.map(lambda _: audit_signer(file), range(4)))
    assert len({signer.public for signer in signers}) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["audit.key"]
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "zz", "00" * 31])
def test_what_is_no_key_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "audit.key"
    file.write_text(content)
    with pytest.raises(InvalidRequest, match="is no key"):
        audit_signer(file)


def test_a_place_for_the_key_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogUnavailable):
        audit_signer(tmp_path / "nowhere" / "audit.key")


def test_times_may_go_back(sqlite_catalog: Catalog) -> None:
    clock = FakeClock()
    log = fill(sqlite_catalog, clock, 2)
    clock.jump(-timedelta(days=3).total_seconds())
    fill(sqlite_catalog, clock, 2)
    assert log.verify().ok


@pytest.mark.crash
def test_checkpoints_that_are_kept_are_durable(
    tmp_path: Path, sqlite_catalog: Catalog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fill(sqlite_catalog, clock, 1).checkpoint(SIGNER)
    assert made is not None
    file, synced = CheckpointFile(tmp_path / "kept"), Synced(tmp_path, monkeypatch)
    for _ in range(2):
        file.append(made)
        assert synced.contents["kept"] == file.path.read_bytes()
    assert synced.calls == ["fsync kept", "fsync .", "fsync kept"]


@pytest.mark.crash
def test_the_key_of_the_log_is_durable_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = Synced(tmp_path, monkeypatch)
    audit_signer(tmp_path / "key", random=bytes)
    beside = f"key.{bytes(8).hex()}"
    assert synced.calls == [f"fsync {beside}", f"link {beside} key", f"unlink {beside}", "fsync ."]
    assert synced.contents[beside] == (tmp_path / "key").read_bytes()
