"""A YAML 1.2 or JSON file as a tree of values that knows where each key and value stands.

It is read from the parser's events and not through a constructor: nothing of a file becomes anything but text,
numbers, lists and tables, an alias costs what it stands for, and sizes are known before anything is built. JSON needs
no second way: it is a part of YAML 1.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, Final, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from backstay.errors import Mistake, PolicyInvalid

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 40
MAX_VALUES: Final = 100_000  # counted as often as an alias repeats them

Value: TypeAlias = str | int | float | bool | None
Key: TypeAlias = tuple[str | int, ...]

_TEXT_TAG: Final = "tag:yaml.org,2002:str"
# The core schema of YAML 1.2, in which `no`, `on` and `12:30` are text.
_WORDS: Final[dict[str, Value]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE: Final = re.compile(r"[-+]?[0-9]{1,30}", re.ASCII)
_OCTAL: Final = re.compile(r"0o[0-7]{1,30}", re.ASCII)
_HEX: Final = re.compile(r"0x[0-9a-fA-F]{1,30}", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,3})?", re.ASCII)
_PAIR: Final = re.compile(r"\\\\|\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})", re.ASCII)
_VERSION: Final = re.compile(r"^%YAML[ \t]+(\S+)", re.MULTILINE)
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value. `outside` says that it came from a variable or a file, and is nobody's business."""

    value: Value
    line: int
    plain: bool = False
    outside: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands under a key, and the line of the key; `told` is the whole key as the user wrote it, if elsewhere."""

    node: Node
    line: int
    told: Key | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Keys with their values."""

    entries: dict[str, Entry]
    line: int


Node: TypeAlias = Scalar | Items | Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file that was read; `mistakes` are those that did not keep it from being read on."""

    file: str
    root: Table
    mistakes: tuple[Mistake, ...] = ()

    def place(self, key: Key) -> tuple[int, Key]:
        """The line where a key stands, and the key as the user wrote it; that of what holds it, where it is not there.

        Parts in angle brackets, which the model adds, are passed over.
        """
        node: Node = self.root
        line, told = 1, tuple[str | int, ...]()
        for part in key:
            if isinstance(node, Table) and isinstance(part, str) and (entry := node.entries.get(part)) is not None:
                node, line, told = entry.node, entry.line, entry.told or (*told, part)
            elif isinstance(node, Items) and isinstance(part, int) and part < len(node.items):
                node, told = node.items[part], (*told, part)
                line = node.line
            elif not (isinstance(part, str) and part.startswith("<")):
                told = (*told, part)
        return line, told

    def mistake(self, key: Key, message: str, hint: str = "") -> Mistake:
        """A mistake at a key."""
        line, told = self.place(key)
        return Mistake(file=self.file, line=line, key=told_key(told), message=message, hint=hint)


def told_key(key: Key) -> str:
    """A key for people: `policies.files.sources[0].paths`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).removeprefix(".")


def read_document(path: Path) -> Document:
    """Read a file. Raises PolicyInvalid."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _broken(str(path), 1, f"it cannot be read: {error.strerror or error}", "check the path") from error
    return parse_document(data, str(path))


def parse_document(data: bytes, file: str) -> Document:
    """The document that these bytes are; `file` is what mistakes call it. Raises PolicyInvalid."""
    if len(data) > MAX_BYTES:
        raise _broken(file, 1, "it is larger than 1 MiB", "is it a policy file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _broken(file, line, "it is not UTF-8", "save it as UTF-8") from error
    try:
        return _Builder(file, text).document()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        told = " ".join(str(error.problem or error.context).split())
        raise _broken(file, mark.line + 1 if mark else 1, f"it is no YAML: {told}") from error
    except YAMLError as error:  # a character that no YAML has
        position = getattr(error, "position", 0)
        told = "it holds a control character"
        raise _broken(file, text.count("\n", 0, position) + 1, told, "remove it, or write it as an escape") from error
    except UnicodeError as error:  # the parser's own, of escapes that are half a character
        raise _broken(file, 1, "an escape in it is no character", "write characters as they are") from error


def resolved(text: str) -> Value:
    """What a plain scalar means in the core schema of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    for pattern, base in ((_OCTAL, 8), (_HEX, 16)):
        if pattern.fullmatch(text):
            return int(text[2:], base)
    return float(text) if _FLOAT.fullmatch(text) else text


def _broken(file: str, line: int, message: str, hint: str = "") -> PolicyInvalid:
    return PolicyInvalid(file, [Mistake(file=file, line=line, key="", message=message, hint=hint)])


@dataclass(slots=True)
class _Builder:
    """Makes the tree from the parser's events."""

    file: str
    text: str
    events: Iterator[Any] = field(init=False)
    anchors: dict[str, tuple[Node, int] | None] = field(default_factory=dict)  # None while it is being read
    values: int = 0
    mistakes: list[Mistake] = field(default_factory=list)

    def document(self) -> Document:
        self._check_version()
        self.events = iter(YAML(typ="rt", pure=True).parse(StringIO(_joined(self.text))))
        next(self.events)  # the stream begins
        begin = next(self.events)
        if isinstance(begin, StreamEndEvent):
            raise _broken(self.file, 1, "it is empty", "docs/policies.md has an example")
        root = self._node(next(self.events), ())
        next(self.events)  # the document ends
        more = next(self.events)
        if not isinstance(more, StreamEndEvent):
            raise _broken(self.file, more.start_mark.line + 1, "a second document begins here", "one file has one")
        if not isinstance(root, Table):
            raise _broken(self.file, root.line, "it has no keys", "it begins with `policies:` or `backup_manager:`")
        return Document(file=self.file, root=root, mistakes=tuple(self.mistakes))

    def _check_version(self) -> None:
        """Before the parser does, which knows no others and not even how to say so."""
        if (found := _VERSION.search(self.text)) is not None and found[1] != "1.2":
            line = self.text.count("\n", 0, found.start()) + 1
            raise _broken(self.file, line, f"it asks for YAML {found[1]}", "policy files are YAML 1.2")

    def _node(self, event: Any, at: Key) -> Node:  # noqa: ANN401 - the parser's events have no common type
        line = event.start_mark.line + 1
        if isinstance(event, AliasEvent):
            return self._alias(str(event.anchor), line)
        if len(at) > MAX_DEPTH:
            raise _broken(self.file, line, f"it is nested more than {MAX_DEPTH} deep")
        before, anchor = self.values, None if event.anchor is None else str(event.anchor)
        if anchor is not None:
            self.anchors[anchor] = None
        self._count(1, line)
        node = self._made(event, line, at)
        if anchor is not None:
            self.anchors[anchor] = (node, self.values - before)
        return node

    def _made(self, event: Any, line: int, at: Key) -> Node:  # noqa: ANN401
        if isinstance(event, ScalarEvent):
            return self._scalar(event, line)
        self._check_tag(event, line)
        if isinstance(event, SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(item := next(self.events), SequenceEndEvent):
                items.append(self._node(item, (*at, len(items))))
            return Items(tuple(items), line)
        assert isinstance(event, MappingStartEvent)
        return self._table(line, at)

    def _table(self, line: int, at: Key) -> Table:
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            here = event.start_mark.line + 1
            if not isinstance(event, ScalarEvent):
                raise _broken(self.file, here, "a key must be a word")
            key = _whole(event.value)
            node = self._node(next(self.events), (*at, key))
            if key in entries:
                told = f"the key stands in line {entries[key].line} already"
                mistake = Mistake(file=self.file, line=here, key=told_key((*at, key)), message=told)
                self.mistakes.append(mistake)
            else:
                entries[key] = Entry(node, here)
        return Table(entries, line)

    def _scalar(self, event: ScalarEvent, line: int) -> Scalar:
        plain = bool(event.implicit[0])
        if not plain and event.tag not in (None, _TEXT_TAG, "!"):
            self._check_tag(event, line)
        text = _whole(event.value)
        return Scalar(resolved(text) if plain else text, line, plain)

    def _check_tag(self, event: Any, line: int) -> None:  # noqa: ANN401
        if event.tag is not None:
            raise _broken(self.file, line, f"the tag {event.tag} means nothing here", "leave it out")

    def _alias(self, anchor: str, line: int) -> Node:
        if anchor not in self.anchors:
            raise _broken(self.file, line, f"there is no anchor &{anchor} before *{anchor}")
        known = self.anchors[anchor]
        if known is None:
            raise _broken(self.file, line, f"*{anchor} stands in itself")
        node, values = known
        self._count(values, line)
        return node

    def _count(self, values: int, line: int) -> None:
        self.values += values
        if self.values > MAX_VALUES:
            raise _broken(self.file, line, f"it has more than {MAX_VALUES} values", "aliases count as what they repeat")


def _joined(text: str) -> str:
    r"""The text of JSON with its pairs of escapes (`\ud83d\ude00`), of which YAML knows nothing, as one each."""
    return _PAIR.sub(_character, text) if text.lstrip().startswith("{") else text


def _character(found: re.Match[str]) -> str:
    if found[1] is None:  # an escaped backslash, which begins no other escape
        return found[0]
    return f"\\U{0x10000 + ((int(found[1], 16) - 0xD800) << 10) + int(found[2], 16) - 0xDC00:08x}"


def _whole(text: str) -> str:
    """The text without halves of characters, which no name or path has."""
    return _SURROGATES.sub("\ufffd", text)
