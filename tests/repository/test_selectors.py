"""Choosing a snapshot by id, prefix, name or latest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import InvalidRequest, NotFound
from backstay.repository.snapshots.selectors import TOLERANCE, is_to_come, shortest_prefixes, split_target
from backstay.repository.snapshots.selectors import choose as choose_at

NOON = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)
CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
choose = partial(choose_at, now=NOON + timedelta(days=1))


@dataclass(frozen=True)
class Snap:
    id: str
    name: str | None
    time: datetime
    paths: tuple[bytes, ...] = (b"/",)


def snap(start: str, name: str | None, hours: float) -> Snap:
    return Snap(start.ljust(26, "0"), name, NOON + timedelta(hours=hours))


WEB_OLD = snap("01kaaa", "web", -10)
WEB_NEW = snap("01kaab", "web", -1)
DB = snap("01kb", "db", 0)
BARE = snap("01kc", None, -5)
ODD = snap("0dad", "01kb", -20)
ALL = [WEB_NEW, DB, WEB_OLD, BARE]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("latest", DB),
        ("latest:web", WEB_NEW),
        ("latest:db", DB),
        ("web", WEB_NEW),
        ("db", DB),
        (WEB_OLD.id, WEB_OLD),
        (WEB_OLD.id.upper(), WEB_OLD),
        ("01kaaa", WEB_OLD),
        ("01KAAB", WEB_NEW),
        ("01kb", DB),
        ("01kc0", BARE),
    ],
)
def test_chooses(text: str, found: Snap) -> None:
    assert choose(ALL, text) is found
    assert choose(iter(reversed(ALL)), text) is found


@pytest.mark.parametrize(
    ("text", "hours", "found"),
    [
        ("latest", -1, WEB_NEW),
        ("latest", -1.5, BARE),
        ("latest:web", -2, WEB_OLD),
        ("web", -2, WEB_OLD),
        ("web", -10, WEB_OLD),
        ("01kaab", -1, WEB_NEW),
    ],
)
def test_chooses_not_later_than(text: str, hours: float, found: Snap) -> None:
    assert choose(ALL, text, at=NOON + timedelta(hours=hours)) is found


@pytest.mark.parametrize(
    ("text", "oldest"), [("latest", WEB_OLD), ("latest:db", DB), ("web", WEB_OLD), ("01kc", BARE), (DB.id, DB)]
)
def test_nothing_that_old_names_the_oldest(text: str, oldest: Snap) -> None:
    with pytest.raises(NotFound, match="that old") as caught:
        choose(ALL, text, at=NOON - timedelta(days=9))
    assert oldest.id in caught.value.cause
    assert oldest.time.isoformat().replace("+00:00", "Z") in caught.value.cause


ETC = replace(snap("01ea", "system", -9), paths=(b"/etc", b"/boot"))
ETC_NEW = replace(snap("01eb", "system", -8), paths=(b"/etc",))
HOME = replace(snap("01ha", None, -7), paths=(b"/home/you",))
DOCUMENTS = replace(snap("01hb", None, -6), paths=(b"/home/you/Documents",))
SOURCES = [HOME, ETC_NEW, DOCUMENTS, ETC]


@pytest.mark.parametrize(
    ("text", "path", "found"),
    [
        ("latest", None, DOCUMENTS),
        ("latest", b"/", DOCUMENTS),
        ("latest", b"/etc", ETC_NEW),
        ("latest", b"//etc/hosts/", ETC_NEW),
        ("latest", b"/boot/grub", ETC),
        ("latest:system", b"/boot", ETC),
        ("system", b"/boot", ETC),
        ("latest", b"/home/you/Documents/letter", DOCUMENTS),
        ("latest", b"/home/you", HOME),  # the newer one holds a part of it only
        ("latest", b"/home", DOCUMENTS),  # nothing holds all of it
        (HOME.id, b"/etc", HOME),
        ("01ha", b"/etc", HOME),
    ],
)
def test_the_newest_is_the_newest_that_holds_the_path(text: str, path: bytes | None, found: Snap) -> None:
    assert choose(SOURCES, text, path=path) is found


def test_the_time_is_asked_of_those_that_hold_the_path() -> None:
    assert choose(SOURCES, "latest", path=b"/etc", at=NOON - timedelta(hours=8.5)) is ETC
    with pytest.raises(NotFound, match="that old"):
        choose(SOURCES, "latest", path=b"/home/you", at=NOON - timedelta(hours=8.5))


@pytest.mark.parametrize(
    ("text", "path"), [("latest", b"/et"), ("latest", b"/etcetera"), ("latest:system", b"/home"), ("system", b"/home")]
)
def test_a_path_that_nothing_holds(text: str, path: bytes) -> None:
    with pytest.raises(NotFound, match=f"holds {path.decode()}:") as caught:
        choose(SOURCES, text, path=path)
    assert "backstay list" in caught.value.hint


@pytest.mark.parametrize("text", ["latest:nobody", "latest:WEB", "01kz", "WEBS", "01kb" + "0" * 23, "01kb:etc/passwd"])
def test_not_found(text: str) -> None:
    with pytest.raises(NotFound) as caught:
        choose(ALL, text)
    assert caught.value.hint


def test_not_found_tells_how_a_path_is_written() -> None:
    with pytest.raises(NotFound) as caught:
        choose(ALL, "01kb:etc/passwd")
    assert "ID:/path" in caught.value.hint


@pytest.mark.parametrize("text", ["", "01k", "we", "latest:"])
def test_makes_no_sense(text: str) -> None:
    with pytest.raises(InvalidRequest):
        choose(ALL, text)


def test_an_empty_repository_has_its_own_answer() -> None:
    with pytest.raises(NotFound) as caught:
        choose([], "latest")
    assert "backstay backup" in caught.value.hint


@pytest.mark.parametrize("at", [None, NOON - timedelta(hours=5)])
def test_an_ambiguous_prefix_lists_its_candidates_whatever_the_time(at: datetime | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        choose(ALL, "01ka", at=at)
    assert f"{WEB_OLD.id}, {WEB_NEW.id}" in caught.value.cause
    assert "at least 6 characters" in caught.value.hint


def test_many_candidates_are_cut_short() -> None:
    many = [snap(f"01ka{number:02}", None, 0) for number in range(20)]
    with pytest.raises(InvalidRequest) as caught:
        choose(many, "01ka")
    assert caught.value.cause.endswith("and 12 more")


def test_a_name_that_begins_an_id_is_ambiguous_and_both_can_be_told() -> None:
    with pytest.raises(InvalidRequest) as caught:
        choose([*ALL, ODD], "01kb")
    assert "at least 5 characters" in caught.value.hint
    assert choose([*ALL, ODD], "01kb0") is DB
    assert choose([*ALL, ODD], "latest:01kb") is ODD


def test_latest_goes_by_time_then_id() -> None:
    one, two = snap("01a", None, 0), snap("01b", None, 0)
    assert choose([two, one], "latest") is choose([one, two], "latest") is two


def test_latest_is_right_in_the_hour_that_comes_twice() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    early = Snap("b" * 26, None, datetime(2026, 10, 25, 2, 50, tzinfo=berlin))
    late = Snap("a" * 26, None, datetime(2026, 10, 25, 2, 10, tzinfo=berlin, fold=1))
    assert choose([early, late], "latest") is late
    assert choose([early, late], "latest", at=late.time) is late
    assert choose([early, late], "latest", at=early.time) is early


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("01kb", ("01kb", None)),
        ("01kb:/etc", ("01kb", b"/etc")),
        ("01kb:/", ("01kb", b"/")),
        ("latest", ("latest", None)),
        ("latest:web", ("latest:web", None)),
        ("latest:/etc/hosts", ("latest", b"/etc/hosts")),
        ("latest:web:/etc", ("latest:web", b"/etc")),
        ("latest:a:b:/etc", ("latest:a:b", b"/etc")),
        ("web:/a:/b", ("web", b"/a:/b")),
        ("latest:postgres://host/db", ("latest:postgres://host/db", None)),
        ("latest:postgres://host/db:/base", ("latest:postgres://host/db", b"/base")),
        ("01kb:/caf\udce9", ("01kb", b"/caf\xe9")),
        ("01kb:etc", ("01kb:etc", None)),
        ("01kb:/etc/", ("01kb", b"/etc")),
        ("01kb:/etc//ssh/./../hosts", ("01kb", b"/etc/hosts")),
    ],
)
def test_split(text: str, parts: tuple[str, bytes | None]) -> None:
    assert split_target(text) == parts


@pytest.mark.parametrize("text", ["", ":/etc"])
def test_split_refuses_a_path_alone(text: str) -> None:
    with pytest.raises(InvalidRequest):
        split_target(text)


AHEAD = snap("01ff", "web", 24 + 1.1)
FAR_AHEAD = snap("01fg", "web", 24 * 365)


def test_a_snapshot_from_the_future_is_latest_only_when_there_is_no_other() -> None:
    for text in ("latest", "latest:web", "web"):
        assert choose([FAR_AHEAD, WEB_OLD, AHEAD, WEB_NEW], text) is WEB_NEW
        assert choose([FAR_AHEAD, AHEAD], text) is FAR_AHEAD
    assert choose([HOME, replace(AHEAD, paths=(b"/etc",))], "latest", path=b"/etc").id == AHEAD.id
    assert choose([FAR_AHEAD, WEB_NEW], FAR_AHEAD.id) is FAR_AHEAD
    assert choose([FAR_AHEAD, WEB_NEW], "latest", at=FAR_AHEAD.time) is FAR_AHEAD


def test_clocks_may_differ_a_little() -> None:
    ahead = replace(AHEAD, time=NOON + timedelta(days=1) + TOLERANCE)
    assert not is_to_come(ahead, NOON + timedelta(days=1))
    assert choose([ahead, WEB_NEW], "latest") is ahead


ids = st.text("01ab", min_size=26, max_size=26) | st.text(CROCKFORD, min_size=26, max_size=26)


@pytest.mark.property
@given(known=st.lists(ids, max_size=20), minimum=st.integers(1, 30))
def test_prefixes_are_unique_and_shortest(known: list[str], minimum: int) -> None:
    prefixes = shortest_prefixes(known, minimum)
    assert set(prefixes) == set(known)
    for whole, prefix in prefixes.items():
        assert [other for other in prefixes if other.startswith(prefix)] == [whole]
        assert len(prefix) >= min(minimum, 26)
        if len(prefix) > minimum:
            assert sum(other.startswith(prefix[:-1]) for other in prefixes) > 1


def test_prefixes_by_default_have_eight_characters() -> None:
    assert shortest_prefixes([DB.id, BARE.id]) == {DB.id: DB.id[:8], BARE.id: BARE.id[:8]}


@pytest.mark.property
@given(known=st.lists(ids, min_size=1, max_size=20, unique=True), data=st.data())
def test_every_short_form_finds_its_snapshot(known: list[str], data: st.DataObject) -> None:
    snaps = [Snap(whole, None, NOON) for whole in known]
    whole = data.draw(st.sampled_from(known))
    assert choose(snaps, shortest_prefixes(known)[whole]).id == whole
