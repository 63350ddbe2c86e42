"""The pattern language of excludes and includes: globs over whole paths, much as in gitignore (docs/tutorial.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from backstay.core.names import printable
from backstay.errors import InvalidRequest

Matcher: TypeAlias = Callable[[str], object]

_MAGIC: Final = re.compile(r"[*?\[\\]")


class AnyDepth:
    """The component `**`: any number of components, also none."""


ANY_DEPTH: Final = AnyDepth()
Component: TypeAlias = str | re.Pattern[str] | AnyDepth


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern: what it matches, and whether it was written with `!`.

    `components` are matched against all components of a path: text by equality, a regular expression whole.
    """

    components: tuple[Component, ...]
    negated: bool
    directories_only: bool

    @property
    def base_name(self) -> Component | None:
        """What the last component must match, when the rest of the path does not matter."""
        free = len(self.components) == 2 and self.components[0] is ANY_DEPTH
        return self.components[1] if free else None

    def may_end_in(self, name: str) -> bool:
        """Whether a path with this last component can match."""
        return not self.components or _one(self.components[-1], name)

    def matches(self, parts: Sequence[str]) -> bool:
        """Whether the components of a path match. Time grows with the product of both lengths, never beyond."""
        reached = {0}
        for part in parts:
            reached = self._step(reached, part)
            if not reached:
                return False
        return len(self.components) in self._skipping(reached)

    def may_match_below(self, parts: Sequence[str]) -> bool:
        """Whether some path that continues this one can match."""
        reached = {0}
        for part in parts:
            reached = self._step(reached, part)
        return any(place < len(self.components) for place in reached)

    def _step(self, reached: set[int], part: str) -> set[int]:
        after: set[int] = set()
        for place in self._skipping(reached):
            if place == len(self.components):
                continue
            component = self.components[place]
            if component is ANY_DEPTH:
                after.add(place)
            elif _one(component, part):
                after.add(place + 1)
        return after

    def _skipping(self, reached: set[int]) -> set[int]:
        """The places, and those behind every `**` that matches nothing."""
        places = set(reached)
        for place in reached:
            while place < len(self.components) and self.components[place] is ANY_DEPTH:
                place += 1  # noqa: PLW2901
                places.add(place)
        return places


def _one(component: Component, part: str) -> bool:
    if isinstance(component, str):
        return component == part
    return isinstance(component, re.Pattern) and component.fullmatch(part) is not None


def text(path: bytes) -> str:
    """A path as matched: one character per UTF-8 character, and one per byte that is none."""
    return path.decode("utf-8", "surrogateescape")


def parse(pattern: bytes) -> Rule:
    """The rule that a pattern means; InvalidRequest when it can mean nothing."""
    rest = text(pattern)
    if "\0" in rest:
        raise _bad(pattern, "no file name holds a zero byte")
    negated = rest.startswith("!")
    rest = rest[negated:]
    directories_only = rest.endswith("/")
    rest = rest.removesuffix("/")
    if not rest and not directories_only:
        raise _bad(pattern, "it is empty")
    anchored = rest.startswith("/") or not rest
    names = rest[1:].split("/") if rest.startswith("/") else rest.split("/") if rest else []
    components = tuple(_component(pattern, name) for name in names)
    return Rule(_spread(components, anchored=anchored), negated, directories_only)


def _spread(components: tuple[Component, ...], *, anchored: bool) -> tuple[Component, ...]:
    """Let a pattern without a leading `/` begin anywhere, and one that ends in `**` match what lies inside only."""
    if components and components[-1] is ANY_DEPTH:
        components = (*components, _ANYTHING)
    return components if anchored else (ANY_DEPTH, *components)


def _component(pattern: bytes, name: str) -> Component:
    if name in ("", ".", ".."):
        raise _bad(pattern, f"{name!r} is no name that a path can hold; write an absolute path or a plain name")
    if name == "**":
        return ANY_DEPTH
    if not _MAGIC.search(name):
        return name
    return re.compile(_regular_expression(pattern, name), re.DOTALL)


def _regular_expression(pattern: bytes, name: str) -> str:
    """Pieces between stars, each of fixed length, the leftmost match of which is final: nothing to backtrack."""
    pieces = [""]
    place = 0
    while place < len(name):
        token, place = _token(pattern, name, place)
        if token is None:
            pieces.append("")
        else:
            pieces[-1] += token
    if len(pieces) == 1:
        return pieces[0]
    middle = (f"(?>.*?{piece})" for piece in pieces[1:-1] if piece)
    return f"{pieces[0]}{''.join(middle)}.*{pieces[-1]}"


def _token(pattern: bytes, name: str, place: int) -> tuple[str | None, int]:
    """The regular expression for the character, class or escape at `place` (None for a star), and what follows it."""
    match name[place]:
        case "*":
            return None, place + 1
        case "?":
            return ".", place + 1
        case "[":
            return _class(pattern, name, place + 1)
        case "\\":
            if place + 1 == len(name):
                raise _bad(pattern, "it ends in a backslash that escapes nothing")
            return re.escape(name[place + 1]), place + 2
        case character:
            return re.escape(character), place + 1


def _class(pattern: bytes, name: str, place: int) -> tuple[str, int]:
    negated = name[place : place + 1] in ("!", "^")
    place += negated
    members: list[str] = []
    while place < len(name) and (name[place] != "]" or not members):
        if name.startswith("[:", place):
            raise _bad(pattern, "classes such as [:alpha:] are not known; write a range")
        first, place = _member(pattern, name, place)
        last = first
        if name[place : place + 1] == "-" and name[place + 1 : place + 2] not in ("", "]"):
            last, place = _member(pattern, name, place + 1)
        if last < first:
            raise _bad(pattern, f"the range {first}-{last} is empty")
        members.append(f"{re.escape(first)}-{re.escape(last)}")
    if place == len(name):
        raise _bad(pattern, "a [ is not closed")
    return f"[{'^' if negated else ''}{''.join(members)}]", place + 1


def _member(pattern: bytes, name: str, place: int) -> tuple[str, int]:
    if name[place] == "\\":
        place += 1
        if place == len(name):
            raise _bad(pattern, "a [ is not closed")
    return name[place], place + 1


def _bad(pattern: bytes, cause: str) -> InvalidRequest:
    return InvalidRequest(f"bad pattern {printable(pattern)}", cause=cause)


_ANYTHING: Final[Component] = re.compile(".*", re.DOTALL)
