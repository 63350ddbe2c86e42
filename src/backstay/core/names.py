"""File names as people may safely see them, and words that every system can show."""

from __future__ import annotations

from typing import Final

from backstay.errors import InvalidRequest

_SHORT: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(path: bytes) -> str:
    """The name with backslash escapes for everything that a terminal would act on or not show.

    Escaped are control and ANSI sequences, marks that change the direction of text, invisible characters, bytes
    that are no UTF-8, and the backslash itself, so that two different names never look the same.
    """
    text = path.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_escaped, text))


def require_utf8(what: str, text: str) -> str:
    """The text. Raises InvalidRequest for bytes that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise unwritable(what) from None
    return text


def require_word(what: str, text: str) -> str:
    """The text, by which something will be found. Raises InvalidRequest for none, and for what is no UTF-8."""
    if not text.strip():
        raise InvalidRequest(
            f"the {what} is empty",
            cause="no snapshot could be found by it",
            hint=f"leave the {what} out, or give it a word; a variable of the shell may be unset",
        )
    return require_utf8(what, text)


def unwritable(what: str) -> InvalidRequest:
    """What is said of a text that stands for bytes that are no UTF-8."""
    return InvalidRequest(
        f"the {what} is not valid UTF-8",
        cause="words are kept so that every system can show them",
        hint="write it in UTF-8",
    )


def _escaped(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how surrogateescape keeps a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
