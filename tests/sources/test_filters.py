"""Exclude and include patterns: a table of what users expect, and laws on generated input."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import InvalidRequest
from backstay.sources import globs
from backstay.sources.filters import Filters, Selection, parse_patterns, read_patterns

EXCLUDES = [
    # pattern, path, is directory, excluded
    (b"*.tmp", b"/a/b.tmp", False, True),
    (b"*.tmp", b"/a/b.tmp.txt", False, False),
    (b"*.tmp", b"/a.tmp/b", False, False),
    (b"cache", b"/home/cache", True, True),
    (b"cache", b"/home/mycache", True, False),
    (b"cache/", b"/home/cache", True, True),
    (b"cache/", b"/home/cache", False, False),
    (b"/home/cache", b"/home/cache", False, True),
    (b"/home/cache", b"/x/home/cache", False, False),
    (b"/home/*/cache", b"/home/ann/cache", True, True),
    (b"/home/*/cache", b"/home/ann/b/cache", True, False),
    (b"/home/**/cache", b"/home/ann/b/cache", True, True),
    (b"/home/**/cache", b"/home/cache", True, True),
    (b"ann/cache", b"/home/ann/cache", True, True),
    (b"ann/cache", b"/home/joann/cache", True, False),
    (b"ann/cache", b"/home/ann/x/cache", True, False),
    (b"**/cache", b"/cache", True, True),
    (b"cache/**", b"/home/cache", True, False),
    (b"cache/**", b"/home/cache/a/b", False, True),
    (b"**/d2/*", b"/x/d2/f", False, True),
    (b"**/d2/*", b"/x/d2", True, False),
    (b"**", b"/x/y", False, True),
    (b"a**b", b"/x/a123b", False, True),
    (b"file?", b"/file1", False, True),
    (b"file?", b"/file", False, False),
    (b"file?", "/fileé".encode(), False, True),
    (b"file?", b"/file\xff", False, True),
    (b"[a-c]x", b"/bx", False, True),
    (b"[!a-c]x", b"/bx", False, False),
    (b"[^a-c]x", b"/dx", False, True),
    (b"[]x]", b"/]", False, True),
    (b"[a-]", b"/-", False, True),
    (b"[\\]]", b"/]", False, True),
    ("[äö]".encode(), "/ö".encode(), False, True),
    (b"\\*", b"/*", False, True),
    (b"\\*", b"/x", False, False),
    (b"\\!x", b"/!x", False, True),
    (b"\\#x", b"/#x", False, True),
    (b"*", b"/new\nline", False, True),
    (b"a*", b"/a\nb", False, True),
    (b"a.c", b"/abc", False, False),
    (b"\xff*", b"/\xffx", False, True),
    (b"x\n", b"/x", False, False),
    (b"x", b"/x\n", False, False),
    (b"/", b"/a", True, False),
]


@pytest.mark.parametrize(("pattern", "path", "is_dir", "excluded"), EXCLUDES)
def test_patterns_match_as_in_gitignore(pattern: bytes, path: bytes, is_dir: bool, excluded: bool) -> None:
    assert Filters([pattern]).excludes(path, is_dir) is excluded


@pytest.mark.parametrize(
    "pattern",
    [
        b"",
        b"!",
        b"a\0b",
        b"[",
        b"[a",
        b"[!",
        b"[]",
        b"[z-a]",
        b"a//b",
        b"./a",
        b"../a",
        b"a/..",
        b"x\\",
        b"//",
        b"[[:alpha:]]",
        b"[\\",
    ],
)
def test_patterns_that_can_mean_nothing_are_refused(pattern: bytes) -> None:
    with pytest.raises(InvalidRequest, match="bad pattern"):
        Filters([pattern])


def test_the_last_pattern_that_matches_decides() -> None:
    filters = Filters([b"*.log", b"!keep.log", b"/tmp/keep.log", b"!b/c.log"])
    assert filters.excludes(b"/x/a.log", False)
    assert not filters.excludes(b"/x/keep.log", False)
    assert filters.excludes(b"/tmp/keep.log", False)
    assert not filters.excludes(b"/a/b/c.log", False)


def test_no_patterns_cost_nothing() -> None:
    assert Filters([]).empty
    assert not Filters([b"x"]).empty
    assert not Filters([]).excludes(b"/x", False)


@pytest.mark.parametrize(
    "pattern",
    [
        b"*a" * 100,
        b"*" * 200 + b"b",
        b"?*" * 100 + b"b",
        b"**/" * 60 + b"b",
        b"**/a/" * 60 + b"b",
        b"[ab]*" * 60 + b"c",
    ],
)
@pytest.mark.parametrize("path", [b"/" + b"a" * 255, b"/a" * 1500])
def test_no_pattern_takes_long(pattern: bytes, path: bytes) -> None:
    filters = Filters([pattern, b"!x" + pattern])
    started = time.thread_time()
    filters.excludes(path, False)
    assert time.thread_time() - started < 2


def test_exclude_files(tmp_path: Path) -> None:
    text = b"# comment\n\n*.o\r\n  lead\ntrail   \nkept\\ \nback\\\\  \n\\#hash\n\xff\xfe\n!no\nlast"
    expected = [b"*.o", b"  lead", b"trail", b"kept\\ ", b"back\\\\", b"\\#hash", b"\xff\xfe", b"!no", b"last"]
    assert list(parse_patterns(text)) == expected
    (tmp_path / "x").write_bytes(text)
    assert read_patterns(tmp_path / "x") == expected
    assert Filters(expected).excludes(b"/kept ", False)
    with pytest.raises(InvalidRequest, match="cannot read exclude file"):
        read_patterns(tmp_path / "missing")


@pytest.mark.parametrize("first", [b"*.o", b"# a comment", b""])
def test_a_mark_at_the_beginning_of_an_exclude_file_belongs_to_no_pattern(first: bytes) -> None:
    text = first + b"\r\nlast\r\n"
    assert list(parse_patterns(b"\xef\xbb\xbf" + text)) == list(parse_patterns(text))
    assert list(parse_patterns(b"one\n\xef\xbb\xbftwo")) == [b"one", b"\xef\xbb\xbftwo"]


SELECTIONS = [
    # include, exclude, path, is directory, selected
    ([], [], b"/a", False, True),
    ([b"**/d2/*"], [], b"/s/d2/f", False, True),
    ([b"**/d2/*"], [], b"/s/d2", True, False),
    ([b"**/d2/*"], [b"**/f-2"], b"/s/d2/f-2", False, False),
    ([b"**/d2/*"], [], b"/s/d1/f", False, False),
    ([b"d2"], [], b"/s/d2/x/y/z", False, True),
    ([b"/s/d2/"], [], b"/s/d2/x", False, True),
    ([b"/s/d2/"], [], b"/s/d2", False, False),
    ([b"/s"], [b"x"], b"/s/x/y", False, False),
    ([b"/s"], [b"*.o", b"!a.o"], b"/s/a.o", False, True),
    ([], [b"x"], b"/x/y", False, False),
    ([b"*.txt", b"!secret.txt"], [], b"/secret.txt", False, False),
    ([b"*.txt", b"!secret.txt"], [], b"/a.txt", False, True),
    ([b"/s", b"!private"], [], b"/s/private/a", False, False),
    ([b"/"], [], b"/any/thing", False, True),
]


@pytest.mark.parametrize(("include", "exclude", "path", "is_dir", "selected"), SELECTIONS)
def test_selections(include: list[bytes], exclude: list[bytes], path: bytes, is_dir: bool, selected: bool) -> None:
    selection = Selection(include, exclude)
    assert selection.selects(path, is_dir) is selected
    assert selection.selects(path, is_dir) is selected, "the same answer from what it remembers"


@pytest.mark.parametrize(
    ("include", "exclude", "path", "may"),
    [
        ([b"/s/d2/*"], [], b"/s", True),
        ([b"/s/d2/*"], [], b"/s/d2", True),
        ([b"/s/d2/*"], [], b"/t", False),
        ([b"/s/d2/*"], [], b"/s/d2/sub", True),
        ([b"/s/d2"], [], b"/s/d3", False),
        ([b"*.txt"], [], b"/any/where", True),
        ([b"*.txt"], [b"any"], b"/any/where", False),
        ([], [], b"/x", True),
        ([], [b"x"], b"/x", False),
        ([b"/a/**/z"], [], b"/a/b/c", True),
        ([b"/a/**/z"], [], b"/b", False),
    ],
)
def test_directories_that_hold_nothing_selected_are_not_entered(
    include: list[bytes], exclude: list[bytes], path: bytes, may: bool
) -> None:
    assert Selection(include, exclude).may_contain(path) is may


def test_a_selection_forgets_rather_than_grows() -> None:
    selection = Selection([b"/d"], [b"/d/7"])
    for number in range(10_000):
        assert selection.selects(b"/d/%d/x" % number, False) is (number != 7)
    assert not selection.selects(b"/d/7/x", False)


def test_a_file_is_not_taken_for_the_directory_of_its_path_that_another_snapshot_has() -> None:
    selection = Selection([b"logs/"])
    assert selection.selects(b"/d/logs", True)
    assert not selection.selects(b"/d/logs", False)
    assert selection.selects(b"/d/logs", True)


# Laws. The reference matcher below is the definition, written as a recursion that may take exponential time.

COMPONENTS = st.sampled_from([b"a", b"b", b"ab", b"*", b"a*", b"*b", b"?", b"[ab]", b"**", b"a*b*"])
NAMES = st.sampled_from([b"a", b"b", b"ab", b"abb", b"c", b"aab"])
PATHS = st.lists(NAMES, min_size=1, max_size=6).map(lambda names: b"/" + b"/".join(names))
PATTERNS = st.builds(
    lambda lead, parts, tail: lead + b"/".join(parts) + tail,
    st.sampled_from([b"", b"/"]),
    st.lists(COMPONENTS, min_size=1, max_size=5),
    st.sampled_from([b"", b"/"]),
)


def _component_matches(pattern: bytes, name: bytes) -> bool:
    if not pattern:
        return not name
    if pattern[:1] == b"*":
        return any(_component_matches(pattern[1:], name[n:]) for n in range(len(name) + 1))
    if not name:
        return False
    if pattern[:1] == b"[":
        return name[:1] in (b"a", b"b") and _component_matches(pattern[4:], name[1:])
    return pattern[:1] in (b"?", name[:1]) and _component_matches(pattern[1:], name[1:])


def _path_matches(pattern: list[bytes], names: list[bytes]) -> bool:
    if not pattern:
        return not names
    if pattern == [b"**"]:
        return bool(names)
    if pattern[0] == b"**":
        return any(_path_matches(pattern[1:], names[n:]) for n in range(len(names) + 1))
    return bool(names) and _component_matches(pattern[0], names[0]) and _path_matches(pattern[1:], names[1:])


def _reference(pattern: bytes, path: bytes, is_dir: bool) -> bool:
    if pattern.endswith(b"/") and not is_dir:
        return False
    parts = pattern.removesuffix(b"/").split(b"/")
    names = path[1:].split(b"/")
    if not parts[0]:
        return _path_matches(parts[1:], names)
    return any(_path_matches(parts, names[n:]) for n in range(len(names) + 1))


@pytest.mark.property
@given(PATTERNS, PATHS, st.booleans())
def test_matching_agrees_with_the_definition(pattern: bytes, path: bytes, is_dir: bool) -> None:
    assert Filters([pattern]).excludes(path, is_dir) is _reference(pattern, path, is_dir)


@pytest.mark.property
@given(st.lists(st.tuples(st.booleans(), PATTERNS), max_size=6), PATHS, st.booleans())
def test_the_last_match_wins(rules: list[tuple[bool, bytes]], path: bytes, is_dir: bool) -> None:
    expected = False
    for negated, pattern in rules:
        if _reference(pattern, path, is_dir):
            expected = not negated
    filters = Filters([b"!" * negated + pattern for negated, pattern in rules])
    assert filters.excludes(path, is_dir) is expected


@pytest.mark.property
@given(st.lists(PATTERNS, min_size=1, max_size=3), st.lists(PATTERNS, max_size=2), PATHS)
def test_what_is_selected_can_be_reached(include: list[bytes], exclude: list[bytes], path: bytes) -> None:
    selection = Selection(include, exclude)
    if selection.selects(path, False):
        parts = path.split(b"/")
        for depth in range(1, len(parts)):
            assert selection.may_contain(b"/".join(parts[:depth]) or b"/")


@pytest.mark.property
@given(st.binary(max_size=30), st.binary(max_size=30))
def test_any_bytes_are_a_pattern_or_an_invalid_request(pattern: bytes, path: bytes) -> None:
    try:
        filters = Filters([pattern])
    except InvalidRequest:
        return
    filters.excludes(b"/" + path, False)


@pytest.mark.property
@given(
    st.binary(min_size=1, max_size=20).filter(lambda name: not re.search(rb"[/\0]", name) and name not in (b".", b".."))
)
def test_an_escaped_name_matches_itself(name: bytes) -> None:
    escaped = re.sub(rb"([*?\[\\!])", rb"\\\1", name)
    assert Filters([escaped]).excludes(b"/x/" + name, False)
    assert not Filters([escaped]).excludes(b"/x/y" + name, False)
    assert globs.parse(escaped).base_name == globs.text(name) or b"\\" in escaped
