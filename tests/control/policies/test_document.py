"""Reading a file into values with places, and every way in which a file can be broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.control.policies.document import MAX_BYTES, parse_document, read_document, resolved
from backstay.control.policies.loading import plain
from backstay.errors import PolicyInvalid
from tests.control.policies.files import FILE, mistakes

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{below}'] * 10)}]\n" for below, name in zip("abcde", "bcdef", strict=True)
)
TABLE = [
    pytest.param("", "1: it is empty (docs/policies.md has an example)", id="empty"),
    pytest.param("# only a remark\n", "1: it is empty (docs/policies.md has an example)", id="remark"),
    pytest.param("just words\n", "1: it has no keys (it begins with `policies:` or `backup_manager:`)", id="no table"),
    pytest.param("a: 1\n---\nb: 2\n", "2: a second document begins here (one file has one)", id="two documents"),
    pytest.param("%YAML 1.1\n---\na: no\n", "1: it asks for YAML 1.1 (policy files are YAML 1.2)", id="YAML 1.1"),
    pytest.param("%YAML 1.0\n---\na: no\n", "1: it asks for YAML 1.0 (policy files are YAML 1.2)", id="YAML 1.0"),
    pytest.param('a: "x\n', "2: it is no YAML: found unexpected end of stream", id="open quote"),
    pytest.param("a: 1\nb: c: d\n", "2: it is no YAML: mapping values are not allowed here", id="two colons"),
    pytest.param("a:\n\t- b\n", "2: it is no YAML: found character '\\t' that cannot start any token", id="tabs"),
    pytest.param("a: 1\n? [b]\n: 2\n", "2: a key must be a word", id="a list as a key"),
    pytest.param(
        "a: !!python/object:os.x 1\n",
        "1: the tag tag:yaml.org,2002:python/object:os.x means nothing here (leave it out)",
        id="python tag",
    ),
    pytest.param("a: !secret 1\n", "1: the tag !secret means nothing here (leave it out)", id="own tag"),
    pytest.param("a: !!set {b}\n", "1: the tag tag:yaml.org,2002:set means nothing here (leave it out)", id="set"),
    pytest.param("a: *b\n", "1: there is no anchor &b before *b", id="alias of nothing"),
    pytest.param("a: &b [*b]\n", "1: *b stands in itself", id="alias of itself"),
    pytest.param(
        BOMB,
        "5: it has more than 100000 values (aliases count as what they repeat)",
        id="aliases that grow",
    ),
    pytest.param("a: " + "[" * 60 + "]" * 60 + "\n", "1: it is nested more than 40 deep", id="deep"),
    pytest.param("a: " + "[" * 200, "1: it is nested more than 40 deep", id="very deep"),
    pytest.param(b"a: 1\nb: \xff\n", "2: it is not UTF-8 (save it as UTF-8)", id="Latin-1"),
    pytest.param("a: 1\n".encode("utf-16"), "1: it is not UTF-8 (save it as UTF-8)", id="UTF-16"),
    pytest.param(b"a: 1\nb: \x01\n", "2: it holds a control character (remove it, or write it as an escape)", id="^A"),
    pytest.param(b"a: 1\n" + b"#" * MAX_BYTES, "1: it is larger than 1 MiB (is it a policy file?)", id="large"),
]


@pytest.mark.parametrize(("text", "told"), TABLE)
def test_a_broken_file_is_told_with_its_line(text: str | bytes, told: str) -> None:
    assert mistakes(text) == [told]


def test_a_key_that_comes_twice_is_told_with_both_lines() -> None:
    text = "policies:\n  a:\n    tags: [x]\n    sources: [{type: sqlite, path: /x}]\n    tags: [y]\n"
    assert mistakes(text) == ["5: policies.a.tags: the key stands in line 3 already"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PolicyInvalid) as told:
        read_document(tmp_path / "none.yaml")
    assert told.value.cause.endswith("none.yaml:1: it cannot be read: No such file or directory (check the path)")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12:30", "12:30"),
        ("on", "on"),
        ("no", "no"),
        ("0755", 755),
        ("0o17", 15),
        ("0xff", 255),
        ("-7", -7),
        ("1.5e3", 1500.0),
        ("true", True),
        ("~", None),
        ("", None),
        ("1_000", "1_000"),
        ("2026-11-20", "2026-11-20"),
    ],
)
def test_plain_words_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    found = resolved(text)
    assert (found, type(found)) == (value, type(value))


def test_aliases_stand_for_what_they_name() -> None:
    document = parse_document(b"a: &x {b: [1, two]}\nc: *x\n", FILE)
    assert plain(document.root) == {"a": {"b": [1, "two"]}, "c": {"b": [1, "two"]}}


def test_quotes_and_the_tag_of_texts_make_texts() -> None:
    document = parse_document(b"a: '1'\nb: \"no\"\nc: !!str 5\nd: |\n  e\n", FILE)
    assert plain(document.root) == {"a": "1", "b": "no", "c": "5", "d": "e\n"}


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert plain(parse_document(b"\xef\xbb\xbfa: 1\n", FILE).root) == {"a": 1}


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts
)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3), max_leaves=6
)
_almost_yaml = st.text(st.sampled_from("ab:-[]{}&*!|>'\"%#?,\n\t \\$~0é\0"), max_size=40).map(str.encode)


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(st.dictionaries(_texts, _values, max_size=4), st.sampled_from([None, 2, "\t"]))
def test_json_is_read_as_json(value: dict[str, object], indent: int | str | None) -> None:
    text = json.dumps(value, indent=indent)
    assert plain(parse_document(text.encode(), FILE).root) == json.loads(text)


@pytest.mark.property
@settings(deadline=None)
@given(_almost_yaml | st.binary(max_size=40))
def test_nothing_but_mistakes_comes_out_of_any_bytes(data: bytes) -> None:
    try:
        good = isinstance(plain(parse_document(data, FILE).root), dict)
    except PolicyInvalid as error:
        good = error.mistakes[0].line >= 1
    assert good
