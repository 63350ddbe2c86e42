"""PostgreSQL's encodings by Python's names."""

from __future__ import annotations

import codecs
import re
from typing import Final

_KNOWN: Final = re.compile(r"(latin|iso_8859_|win)[0-9]+|koi8[ru]|euc_[a-z0-9_]+|gbk|gb18030|big5|sjis|uhc|johab")


def codec_of(encoding: str) -> str:
    """The codec of an encoding such as `LATIN1`; UTF-8 for what Python does not know, or is none, as SQL_ASCII."""
    name = encoding.lower()
    if not _KNOWN.fullmatch(name):
        return "utf-8"
    try:
        return codecs.lookup(re.sub("^win", "cp", re.sub("^koi8", "koi8_", name))).name
    except LookupError:
        return "utf-8"
