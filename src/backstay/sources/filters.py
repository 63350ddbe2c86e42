"""Which paths are left out of a backup, and which a restore selects."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, Protocol

from backstay.core.arguments import checks_arguments
from backstay.errors import InvalidRequest
from backstay.sources import globs

_REMEMBERED: Final = 4096  # directories whose verdict a selection keeps
_MAX_EXCLUDE_FILE: Final = 64 << 20


@checks_arguments
class Filters:
    """What a backup leaves out. The last pattern that matches decides; `!` takes something back in.

    Directories that are left out are not entered, so that nothing below them can be taken back in. With
    `exclude_caches` only its tag is kept of a directory that a program marked as a cache (bford.info/cachedir).
    """

    def __init__(
        self, patterns: Sequence[bytes], *, exclude_caches: bool = False, one_file_system: bool = False
    ) -> None:
        self.patterns = tuple(patterns)
        self.exclude_caches = exclude_caches
        self.one_file_system = one_file_system
        self._rules = _Rules(patterns)
        self.empty = not patterns  # then `excludes` need not be asked

    def excludes(self, path: bytes, is_dir: bool) -> bool:
        """Whether this path itself is left out."""
        return self._rules.verdict(path, is_dir) is True


class Selection:
    """What a restore takes: items that an include matches and all below them, without what an exclude matches.

    With no includes everything is taken. The nearest of an item and its parents that any include matches decides.
    """

    def __init__(self, include: Sequence[bytes] = (), exclude: Sequence[bytes] = ()) -> None:
        self._include = _Rules(include)
        self._exclude = _Rules(exclude)
        self._everything = not include
        self.empty = not include and not exclude
        self._known: dict[bytes, tuple[bool, bool]] = {}

    def selects(self, path: bytes, is_dir: bool) -> bool:
        """Whether this item is to be restored."""
        included, excluded = self._state(path, is_dir=is_dir)
        return included and not excluded

    def may_contain(self, path: bytes) -> bool:
        """Whether something below this directory can be selected."""
        included, excluded = self._state(path, is_dir=True)
        return not excluded and (included or self._include.may_match_below(path))

    def _state(self, path: bytes, *, is_dir: bool) -> tuple[bool, bool]:
        """(included, excluded) for a path. What is known of one is of a directory, also where a file has that path."""
        if is_dir or path == b"/":
            return self._directory_state(path)
        above = self._directory_state(path.rpartition(b"/")[0] or b"/")
        return self._own_state(path, is_dir=False, above=above)

    def _directory_state(self, path: bytes) -> tuple[bool, bool]:
        """The same for a directory, worked out downwards from the nearest one that is known."""
        todo: list[bytes] = []
        place = path
        while (state := self._known.get(place)) is None and place != b"/":
            todo.append(place)
            place = place.rpartition(b"/")[0] or b"/"
        if state is None:
            state = self._own_state(place, is_dir=True, above=(self._everything, False))
        for place in reversed(todo):
            state = self._own_state(place, is_dir=True, above=state)
            self._remember(place, state)
        return state

    def _own_state(self, path: bytes, *, is_dir: bool, above: tuple[bool, bool]) -> tuple[bool, bool]:
        included = self._include.verdict(path, is_dir)
        excluded = above[1] or self._exclude.verdict(path, is_dir) is True
        return (above[0] if included is None else included), excluded

    def _remember(self, path: bytes, state: tuple[bool, bool]) -> None:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[path] = state


def read_patterns(file: Path) -> list[bytes]:
    """The patterns of an exclude file: one per line; blank lines and lines that begin with `#` are skipped."""
    try:
        if file.stat().st_size > _MAX_EXCLUDE_FILE:
            raise InvalidRequest(f"cannot use exclude file {file}", cause="it is larger than 64 MiB")
        with file.open("rb") as opened:
            content = opened.read(_MAX_EXCLUDE_FILE + 1)
        if len(content) > _MAX_EXCLUDE_FILE:  # a device says nothing of its size
            raise InvalidRequest(f"cannot use exclude file {file}", cause="it is larger than 64 MiB")
    except OSError as error:
        raise InvalidRequest(f"cannot read exclude file {file}", cause=str(error.strerror)) from error
    return list(parse_patterns(content))


def parse_patterns(content: bytes) -> Iterator[bytes]:
    """The patterns in the text of an exclude file; blanks at the end of a line count only behind a backslash."""
    for line in content.removeprefix(codecs.BOM_UTF8).split(b"\n"):
        pattern = line.removesuffix(b"\r")
        stripped = pattern.rstrip(b" \t")
        escapes = len(stripped) - len(stripped.rstrip(b"\\"))
        if escapes % 2 and len(stripped) < len(pattern):
            stripped = pattern[: len(stripped) + 1]
        if stripped and not stripped.startswith(b"#"):
            yield stripped


class _Group(Protocol):
    """Rules of one sign that are asked together."""

    negated: bool

    def matches(self, path: str, name: str, is_dir: bool) -> bool: ...


class _Rules:
    """Patterns in their order, compiled; neighbours that look only at base names share one look-up."""

    def __init__(self, patterns: Sequence[bytes]) -> None:
        self._rules = [globs.parse(pattern) for pattern in patterns]
        self._last_first: list[_Group] = []
        for (negated, by_name), rules in groupby(reversed(self._rules), _group_key):
            if by_name:
                self._last_first.append(_NameGroup(list(rules), negated=negated))
            else:
                self._last_first.extend(map(_PathGroup, rules))

    def verdict(self, path: bytes, is_dir: bool) -> bool | None:
        """True when the last rule that matches is a plain one, False when it has a `!`, None when none matches."""
        if not self._last_first:
            return None
        decoded = globs.text(path)
        name = decoded[decoded.rfind("/") + 1 :]
        for group in self._last_first:
            if group.matches(decoded, name, is_dir):
                return not group.negated
        return None

    def may_match_below(self, path: bytes) -> bool:
        """Whether a plain rule can match something below this directory."""
        parts = _parts(globs.text(path))
        return any(rule.may_match_below(parts) for rule in self._rules if not rule.negated)


def _group_key(rule: globs.Rule) -> tuple[bool, bool]:
    return rule.negated, rule.base_name is not None and not rule.directories_only


class _NameGroup:
    """Base names, asked with one set look-up and one regular expression."""

    def __init__(self, rules: Sequence[globs.Rule], *, negated: bool) -> None:
        self.negated = negated
        names = [rule.base_name for rule in rules]
        self._plain = frozenset(name for name in names if isinstance(name, str))
        expressions = [name.pattern for name in names if isinstance(name, re.Pattern)]
        joined = "|".join(f"(?:{expression})" for expression in expressions)
        self._globs = re.compile(joined, re.DOTALL).fullmatch if expressions else None

    def matches(self, path: str, name: str, is_dir: bool) -> bool:  # noqa: ARG002
        return name in self._plain or (self._globs is not None and self._globs(name) is not None)


class _PathGroup:
    """One rule that looks at more than the base name."""

    def __init__(self, rule: globs.Rule) -> None:
        self.negated = rule.negated
        self._rule = rule

    def matches(self, path: str, name: str, is_dir: bool) -> bool:
        rule = self._rule
        # Most paths fail at their last component, and then need not be taken apart.
        possible = (is_dir or not rule.directories_only) and rule.may_end_in(name)
        return possible and rule.matches(_parts(path))


def _parts(path: str) -> list[str]:
    return path.strip("/").split("/") if path.strip("/") else []
