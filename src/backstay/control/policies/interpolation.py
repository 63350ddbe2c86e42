"""Variables and files in the values of a policy file: on values that were read, never on the text of the file.

So a variable cannot add keys, whatever it holds. What is put in is nobody's business: `policy show` hides it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from backstay.control.policies.document import Document, Entry, Items, Key, Node, Scalar, Table
from backstay.errors import Mistake

MAX_FILE: Final = 64 << 10  # bytes of a file that a value is taken from
_DOLLAR: Final = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<inner>[^}]*)(?P<end>\}?))", re.DOTALL)
_VARIABLE: Final = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<how>[-?])(?P<rest>.*))?", re.ASCII | re.DOTALL)
_FORMS: Final = "write ${NAME}, ${NAME:-default}, ${NAME:?message} or ${file:/path}; $$ is a dollar sign"


class Outside(str):
    """A text into which something was put from outside; a number where a number is asked for."""

    __slots__ = ()


class CannotFill(Exception):
    """A variable or file is not there, or the text that asks for it makes no sense."""

    def __init__(self, message: str, hint: str = _FORMS) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def fill(text: str, environ: Mapping[str, str]) -> tuple[str, bool]:
    """(The text with its variables and files put in, whether something came from outside). Raises CannotFill."""
    outside = False

    def put(found: re.Match[str]) -> str:
        nonlocal outside
        if found["escaped"]:
            return "$"
        if not found["end"]:
            raise CannotFill("`${` has no end")
        value, is_outside = _value(found["inner"], environ)
        outside = outside or is_outside
        return value

    return _DOLLAR.sub(put, text), outside


def escaped(text: str) -> str:
    """The text that `fill` makes this one of."""
    return text.replace("$", "$$")


def _value(inner: str, environ: Mapping[str, str]) -> tuple[str, bool]:
    if inner.startswith("file:"):
        return _file(inner.removeprefix("file:")), True
    found = _VARIABLE.fullmatch(inner)
    if found is None:
        raise CannotFill(f"${{{inner}}} is no variable")
    name, how, rest = found["name"], found["how"], found["rest"] or ""
    if "${" in rest:
        raise CannotFill(f"a variable stands in the {'default' if how == '-' else 'message'} of {name}")
    if how is None:
        if name not in environ:
            raise CannotFill(f"the variable {name} is not set", f"set it, or write ${{{name}:-default}}")
        return environ[name], True
    if environ.get(name):
        return environ[name], True
    if how == "-":
        return rest, False
    raise CannotFill(f"the variable {name} is not set: {rest}" if rest else f"the variable {name} is not set", "set it")


def _file(name: str) -> str:
    if not name.startswith("/"):
        raise CannotFill(f"the path {name!r} does not begin with a slash", "write ${file:/whole/path}")
    try:
        with Path(name).open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        raise CannotFill(
            f"{name} cannot be read: {getattr(error, 'strerror', None) or error}", "check the path"
        ) from error
    if len(data) > MAX_FILE:
        raise CannotFill(f"{name} is larger than 64 KiB", "check the path")
    try:
        return data.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise CannotFill(f"{name} is not UTF-8", "check the path") from error


def interpolated(document: Document, environ: Mapping[str, str]) -> tuple[Document, set[str]]:
    """The document with all its values filled, and the keys, as told, that could not be; its mistakes tell why."""
    filling = _Filling(document, environ)
    root = filling.node(document.root, ())
    assert isinstance(root, Table)
    done = replace(document, root=root, mistakes=(*document.mistakes, *filling.mistakes))
    return done, {mistake.key for mistake in filling.mistakes}


@dataclass(slots=True)
class _Filling:
    document: Document
    environ: Mapping[str, str]
    mistakes: list[Mistake] = field(default_factory=list)

    def node(self, node: Node, key: Key) -> Node:
        if isinstance(node, Table):
            entries = {
                name: Entry(self.node(entry.node, (*key, name)), entry.line, entry.told)
                for name, entry in node.entries.items()
            }
            return Table(entries, node.line)
        if isinstance(node, Items):
            return Items(tuple(self.node(item, (*key, at)) for at, item in enumerate(node.items)), node.line)
        return self._scalar(node, key)

    def _scalar(self, scalar: Scalar, key: Key) -> Scalar:
        if not isinstance(scalar.value, str) or "$" not in scalar.value:
            return scalar
        try:
            text, outside = fill(scalar.value, self.environ)
        except CannotFill as error:
            self.mistakes.append(self.document.mistake(key, error.message, error.hint))
            return scalar
        return replace(scalar, value=Outside(text) if text != scalar.value else text, outside=outside)
